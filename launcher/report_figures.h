// What a run, or a phase of one, came to, read back from its folder: the figures of a report.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/config.h"

namespace troupe {

// Answers to held-out problems at one version.
struct AnswerFigures {
  double accuracy = 0, greedy = 0, pass = 0, temperature = 1;
  int pass_k = 0, problems = 0, samples = 0;
};

struct RunFigures {
  std::int64_t steps = 0, tokens = 0, answers_sampled = 0;
  std::int64_t skipped = 0, stalls = 0, gaps = 0, checked = 0;  // log-probabilities recomputed: other bits, and all
  int losses = 0;
  double flops = 0;  // of training, by the cost model
  std::optional<AnswerFigures> before, after;
  std::optional<double> loss_before, loss_after;            // held-out, nats a token
  std::vector<std::pair<std::int64_t, double>> loss_curve;  // version, held-out loss
  std::map<std::string, double> thread_seconds;             // by bin
  double dollars = 0, device_hours = 0, wall_hours = 0;
  std::string ended_by;
};

RunFigures read_figures(const Config& config, const std::string& folder);

}  // namespace troupe
