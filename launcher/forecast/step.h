// How long a step takes on a cluster, from shapes and rates alone: an estimate that ranks layouts before a simulated step,
// or a real one, says more. Pure.
// The law of the estimate: a step is the busiest device's work, plus what its links need beyond that, plus the pipeline's
// ends, plus the optimizer. Experts are taken to be evenly used.
#pragma once

#include <functional>

#include "actors/config.h"
#include "launcher/forecast/cluster.h"
#include "launcher/forecast/work.h"

namespace troupe {

struct StepBins {                    // seconds of the busiest device
  double products = 0, traffic = 0;  // its arithmetic, and what its memory adds
  double links = 0;                  // messages that no work hides: rows, credits too few, the twins' sums
  double bubble = 0;                 // while the pipeline fills and empties
  double optimizer = 0;
  double total() const { return products + traffic + links + bubble + optimizer; }
};

// REQUIRES: config.layout is legal on cluster.devices nodes, and why_untold(cluster) is empty.
StepBins step_bins(const Config& config, const Cluster& cluster, const ModelWork& work);

// Whoever knows better than the estimate: a simulated step, a measured one.
using StepSeconds = std::function<double(const Config& config, const Cluster& cluster)>;
double step_seconds(const Config& config, const Cluster& cluster);

// Stage actors and shard actors on the fullest device.
struct Load {
  int stages = 0, shards = 0;
  bool together = false;  // some device has both
};
Load load_of(const Config& config, int devices);

}  // namespace troupe
