// What the conductor tells people: one JSON object a line, for metrics.jsonl and the progress line.
// The launcher adds to a step its `cost_dollars` (of all that the run has taken so far, with its earlier processes), and
// lines of its own of kind "bill", about one a second and one at the end: `version`, `thread_seconds` by bin (see
// actors/rules/bill.h), their sum `total_thread_seconds`, what the clock says `wall_thread_seconds`, `worst` by bin (who
// was waited for most), `useful` (share of the total), `cost_dollars`, `memory_mib` (of each node, its process's largest
// resident size). All count from the beginning of the run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/rules/decision.h"

namespace troupe {

// Largest resident size of this process, since the program began: not of what called it.
double peak_memory_mib();
// The same in KiB, in the text of /proc/self/status; empty: it isn't told there.
std::optional<std::int64_t> peak_kib_in(const std::string& status);

struct StepTiming {
  double seconds = 0, run_seconds = 0;
};  // of this step; of the run since its first step

// step, loss, gradient norm, learning rate, tokens/s, MFU, load max/mean per layer, router entropy, memory.
// flops_per_token: training_flops_per_token of the model, which lists all of its tensors: asked once a run.
std::string step_json(const Config& config, double flops_per_token, const TrainingState& state, const StepPlan& plan,
                      const StepOutcome& outcome, const StepTiming& timing, const std::string& rollout = "");

struct EvaluationTotals {
  double loss_sum = 0;
  std::int64_t targets = 0;
  std::vector<ExpertCounts> counts;
};
std::string evaluation_json(std::int64_t version, const EvaluationTotals& totals, double seconds);

// Rows of each expert, by layer.
std::string experts_json(const std::vector<ExpertCounts>& counts);

struct WrittenAnswer {
  std::string prompt, text, answer;
  bool right = false;
};
std::string exact_match_json(const std::vector<WrittenAnswer>& answers);

// What ends a run, as a person reads it.
Report problem_report(const std::string& sentence);

// state.json of a checkpoint, and back.
std::string state_json(const TrainingState& state);
TrainingState state_from_json(const std::string& text);

// Busiest expert's rows over the mean.
double load_ratio(const ExpertCounts& counts);

}  // namespace troupe
