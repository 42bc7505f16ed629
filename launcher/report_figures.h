// What a run, or a phase of one, came to, read back from its folder: the figures of a report.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "actors/config.h"

namespace troupe {

// Answers to held-out problems at one version.
struct AnswerFigures {
  double accuracy = 0, greedy = 0, pass = 0, temperature = 1;
  int pass_k = 0, problems = 0, samples = 0;
};

// Of a step, a rollout or a version that was told twice (what a process that died had done is done again) the later
// counts.
struct RunFigures {
  std::int64_t steps = 0, tokens = 0, answers_sampled = 0;
  std::int64_t skipped = 0, stalls = 0, gaps = 0, checked = 0;  // log-probabilities recomputed: other bits, and all
  int losses = 0;
  double flops = 0;                               // of training, by the cost model
  std::map<std::int64_t, AnswerFigures> answers;  // by version; a phase that only asked has one
  std::map<std::int64_t, double> loss;            // by version: held-out, nats a token
  std::map<std::string, double> thread_seconds;   // by bin
  double dollars = 0, device_hours = 0;
  std::string ended_by;
};

RunFigures read_figures(const Config& config, const std::string& folder);

}  // namespace troupe
