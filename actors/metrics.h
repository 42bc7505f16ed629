// What the conductor tells people: one JSON object a line, for metrics.jsonl and the progress line.
#pragma once

#include <string>
#include <vector>

#include "actors/rules/decision.h"

namespace troupe {

struct StepTiming {
  double seconds = 0, run_seconds = 0;
};  // of this step; of the run since its first step

// step, loss, gradient norm, learning rate, tokens/s, MFU, load max/mean per layer, router entropy, memory, cost.
std::string step_json(const Config& config, const TrainingState& state, const StepPlan& plan,
                      const StepOutcome& outcome, const StepTiming& timing);

struct EvaluationTotals {
  double loss_sum = 0;
  std::int64_t targets = 0;
  std::vector<ExpertCounts> counts;
};
std::string evaluation_json(std::int64_t version, const EvaluationTotals& totals, double seconds);

struct WrittenAnswer {
  std::string prompt, text, answer;
  bool right = false;
};
std::string exact_match_json(const std::vector<WrittenAnswer>& answers);

// state.json of a checkpoint, and back.
std::string state_json(const TrainingState& state);
TrainingState state_from_json(const std::string& text);

// Busiest expert's rows over the mean.
double load_ratio(const ExpertCounts& counts);

}  // namespace troupe
