// Which of UCX's ways a transport takes, by the name that a person gives, and which peers share this machine. No UCX here.
#pragma once

#include <array>
#include <cstdint>

#include "messages/ucx.h"

namespace troupe {

// Where peers of one way may be, and what UCX calls it.
struct UcxWays {
  const char *name, *tls;
  bool within, sockets, adapters;  // within a machine; between machines by interfaces, by InfiniBand's adapters
  bool between() const { return sockets || adapters; }
};
// Throws Error: no such ways, or this host lacks what they need. UCX itself would only warn, and start without.
const UcxWays& ucx_ways_of(const UcxOptions& options);

// The same of two processes that share memory and hear at once of each other's end: one start of one machine, one
// /dev/shm, one network namespace.
using MachinePlace = std::array<char, 3 * sizeof(std::uint64_t)>;
MachinePlace own_place();

}  // namespace troupe
