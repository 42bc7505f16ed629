// Answers to held-out problems, as figures: what an evaluation of a task tells.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/rollout_record.h"
#include "actors/tasks/task_text.h"

namespace troupe {

// sampled: evaluate.samples answers to each problem, by problem; greedy: one each. As a line of metrics.
std::string answers_json(const Config& config, const TaskSet& tasks, std::int64_t version,
                         const std::vector<RolloutAnswer>& sampled, const std::vector<RolloutAnswer>& greedy);

}  // namespace troupe
