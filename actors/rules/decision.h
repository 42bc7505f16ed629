// The commit decision: a pure function of a step's votes. The same votes give the same decision anywhere, any time.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "actors/config.h"
#include "messages/message.h"

namespace troupe {

// What the conductor carries from step to step; part of a checkpoint's state.json.
struct TrainingState {
  std::int64_t version = 0;  // steps decided
  std::int64_t updates = 0;  // steps committed
  std::int64_t tokens = 0;   // trained
  int skips_in_row = 0;
  double loss_mean = 0;        // running mean for the spike policy; 0: none yet
  double best_evaluation = 0;  // 0: none yet
  std::int64_t best_version = -1;
  double seconds = 0;                             // of training, all runs together
  double accuracy = -1;                           // of the held-out answers before the last step; -1: none yet
  std::map<std::int64_t, std::uint64_t> digests;  // with rollouts: of the weights, by version, as far back as needed
};

struct StepLosses {
  double loss = 0, mtp_loss = 0, balance_loss = 0, total_loss = 0;
  std::int64_t targets = 0;
  // With rollouts: the mean divergence from the reference, share of clipped tokens, mean entropy; log-probabilities that
  // differ from those recorded at sampling, and the largest difference.
  double kl = 0, clipped = 0, entropy = 0, gap_max = 0;
  std::int64_t gaps = 0;
};

struct StepOutcome {
  Decision decision;
  StepLosses losses;
  std::vector<ExpertCounts> counts;
  std::string problem;  // votes that can't be: twins differ; names tensor and owners
  std::string reason;   // the step is the last: the key that says so
};

using Votes = std::map<Address, Vote>;

// An allowance of time or dollars that is spent; 0 would be one without a limit.
constexpr std::int64_t kNothingLeftUs = 1;
// The key of the limit that a run in this state has reached; empty: none.
std::string budget_reached(const Config& config, const TrainingState& state);
// REQUIRES: a vote of every owner, all of this step and attempt.
StepOutcome decide(const Config& config, const TrainingState& state, const StepPlan& plan, const Votes& votes);
// The state after the decision.
TrainingState advance(const Config& config, const TrainingState& state, const StepPlan& plan,
                      const StepOutcome& outcome);

}  // namespace troupe
