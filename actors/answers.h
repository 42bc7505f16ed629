// Answers to held-out problems, as figures: what an evaluation of a task tells.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/rollout_record.h"
#include "actors/tasks/task_text.h"

namespace troupe {

// 1 - C(n - c, k) / C(n, k): the chance that k of n answers, c of them right, have a right one among them; unbiased
// (Chen et al. 2021). REQUIRES: 1 <= k <= n.
double pass_at_k(int n, int c, int k);

// sampled: evaluate.samples answers to each problem, by problem; greedy: one each. As a line of metrics.
std::string answers_json(const Config& config, const TaskSet& tasks, std::int64_t version,
                         const std::vector<RolloutAnswer>& sampled, const std::vector<RolloutAnswer>& greedy);

}  // namespace troupe
