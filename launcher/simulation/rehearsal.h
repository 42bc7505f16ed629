// A rehearsal: the first steps of a run, its last checkpoint too, in virtual time. Actors, node, link layer, ready heap
// and kernels are those of production and compute the run's own numbers; each segment lasts as long as it took to compute
// here, by itself on one thread, and each turn of a loop likewise. Wires and disk are simulated, by what the
// configuration and `links` say. So a layout's step and its memory are known before its machines, and its network, are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

struct RehearsalLinks {
  double latency_us = 0, gbytes_per_second = 0;  // between nodes of a machine, one way
};

struct RehearsalOptions {
  Config config;  // of the run; device.kind "cpu", with threads
  int steps = 8, warm_up = 3;
  int cores = 0;               // of a machine, for all of its nodes' threads and loops
  int nodes_a_machine = 1;
  RehearsalLinks links;
  std::string scratch;  // a folder that isn't there
  std::function<void(std::int64_t step)> heard = {};  // another step was computed
};

struct RehearsedNode {
  std::size_t actors = 0, process = 0, journal = 0;  // bytes: the most at once; what any process takes; at the run's end
  std::size_t peak() const { return actors + process + journal; }
};

struct Rehearsal {
  std::vector<double> step_seconds;  // of virtual time, without warm_up; of all companions
  double seconds = 0;                // their median
  std::vector<RehearsedNode> nodes;
  double took_s = 0;  // of real time
};

Rehearsal rehearse(const RehearsalOptions& options);

}  // namespace troupe
