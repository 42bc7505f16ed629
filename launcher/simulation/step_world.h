// One step of a run on hardware that isn't there: the production actors on simulated nodes in virtual time, with devices
// that have neither numbers nor memory. The law: what comes out is a function of configuration, fold, load and seed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "actors/config.h"
#include "kernels/sim/expert_load.h"
#include "launcher/simulation/fold.h"

namespace troupe {

struct StepOptions {
  Config config;               // of the whole; its hardware is the cluster's
  int replicas_simulated = 0;  // 0: all
  ExpertLoad load = {};
  std::uint64_t seed = 1;
  bool memory = false;        // tensors have bytes: what it costs
  int lose = 0;               // nodes, one after another: each in the middle of the step, from a world of its own
  double start_seconds = 60;  // from the moment that a loss is noticed until the replacement is there
};

// What the loss of one node costs the run.
struct LossFigures {
  std::uint32_t node = 0;
  double lost_s = 0, back_s = 0, ready_s = 0;  // since the step began: lost, replaced, all in one state again
  double seconds = 0;                          // until all have the next version
  std::int64_t version = 0;                    // that all went back to
  std::uint64_t parts = 0;                     // of states that copies gave back
};

struct KindCount {
  std::uint64_t messages = 0;
  double first_s = 0, last_s = 0;  // since the step began, as they reached their actors
};

struct StepFigures {
  Config world;  // that was simulated
  Fold fold;
  double seconds = 0, decided_s = 0;             // until all have the next version; until the decision
  std::map<std::string, double> device_seconds;  // by bin of the bill, of the step alone
  std::map<std::string, KindCount> kinds;
  std::uint64_t messages = 0, frames = 0, segments = 0, moments = 0;
  std::size_t actors = 0;
  double set_up_s = 0, simulated_s = 0;  // of real time
  std::size_t peak_bytes = 0;            // of this process
  std::vector<LossFigures> losses;
};

// With `lose`, the step is simulated so many times more. Throws Error: there aren't so many nodes, or no copies of states.
StepFigures simulate_step(const StepOptions& options);

// "even", "zipf:0.5" (the share of the r-th expert falls as r^-0.5), or a file of numbers, one an expert. Throws Error.
ExpertLoad expert_load_from(const std::string& text, int experts);

std::string to_text(const StepFigures& figures);

}  // namespace troupe
