// A transport between nodes of one process: for tests and simulated worlds. Faults are drawn from a seed.
#pragma once

#include <memory>
#include <vector>

#include "messages/transport.h"

namespace troupe {

struct InProcessFaults {
  std::uint64_t seed = 0;
  double drop = 0, duplicate = 0, reorder = 0, corrupt = 0;  // probabilities per frame
};

// `nodes` transports that reach each other by node number, already connected. carries_device: the nodes have one device
// together, whose payloads all of them may have.
std::vector<std::unique_ptr<Transport>> make_in_process_transports(std::uint32_t nodes,
                                                                   const InProcessFaults& faults = {},
                                                                   bool carries_device = false);

}  // namespace troupe
