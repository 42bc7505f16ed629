// What `troupe doctor --hosts` gathers: of each host, and of each pair. Values, so that what follows from them is tested
// on hosts that aren't there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launcher/pairs/meter.h"
#include "launcher/pairs/rounds.h"

namespace troupe {

struct HostFacts {
  std::string name;
  std::string problem;  // why nothing is known of it, or why it was lost: "is lost: ..."; empty: it answered to the end
  std::string doctor;   // what its doctor says of it, a JSON object; empty: nothing
  // Of that, what is compared or shown.
  std::string version, processor, machine;  // machine: what the bits of a run depend on
  int cores = 0;
  std::string gpus;  // "2 x NVIDIA H100"; empty: none
  std::vector<std::string> problems, advice;
  std::vector<std::string> infiniband;            // devices: "mlx5_0:1"
  std::string ports;                              // that programs get without asking: "32768-60999"
  double clock_ahead_us = 0, clock_doubt_us = 0;  // of this machine's, by so much at the most
};

struct PairFacts {
  HostPair hosts;
  std::optional<PairFigures> figures;  // `out` is from a to b; none: not measured
  std::string problem;                 // why, if both hosts are there
};

struct HostsFacts {
  std::string transport,
      interface;          // as a run of these hosts would have them: "any", "eth0"; interface "": UCX's choice
  bool together = false;  // pairs that share no host were measured at the same time
  std::vector<HostFacts> hosts;
  std::vector<PairFacts> pairs;
};

}  // namespace troupe
