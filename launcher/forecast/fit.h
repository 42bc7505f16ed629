// Whether a layout fits the devices' memory, by the same code that the run takes its memory with (launcher/plan.h).
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "launcher/forecast/cluster.h"
#include "launcher/plan.h"

namespace troupe {

struct Contribution {
  std::string what;   // "stage 3: activations"
  double gbytes = 0;  // of 1e9 bytes
};

// Of the fullest device, whatever it is.
struct LayoutMemory {
  ActorPlan stage, shard;                     // the largest of each; shard.total() is 0 without experts
  double device_gbytes = 0, host_gbytes = 0;  // of the device's own, and of its host's
  std::vector<Contribution> parts;            // of those two, the largest first
};
// REQUIRES: config.layout is legal on so many nodes.
LayoutMemory memory_of(const Config& config, int devices);

struct Fit {
  LayoutMemory memory;  // all of it the device's where the hardware has no host_gbytes
  double filled = 0;    // share of the memory that is short first; above 1 it does not fit
  std::string advice;   // what to change; "" when it fits
  bool fits() const { return filled <= 1; }
};
Fit fit_of(LayoutMemory memory, const HardwareConfig& hardware);

// Remembers: to list a large model's tensors takes time, and the layouts are the same on all hardware.
class MemoryBook {
 public:
  const LayoutMemory& of(const Config& config, int devices);

 private:
  std::map<std::tuple<int, int, int, int>, LayoutMemory> known_;  // by devices, replicas, stages, expert shards
};

}  // namespace troupe
