// A rehearsal: the first steps of a run, and its last checkpoint, in virtual time. Actors, node, link layer, ready heap
// and kernels are those of production and compute the run's own numbers; a segment lasts as long as it took to compute
// here, by itself on one thread, and a loop's turn likewise. Wires and disk are simulated, as the configuration and its
// hardware file say. So a layout's step and memory are known before its machines and its network are there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

struct RehearsalOptions {
  Config config;  // of the run; device.kind "cpu", with threads
  int steps = 40, warm_up = 3;
  std::int64_t steps_in_all = 0;  // of the run itself
  double seconds_max = 60;        // of real time: then it comes to its end, after warm_up steps at least
  int cores = 1;                  // of a machine, for all threads and loops of its nodes
  int nodes_a_machine = 1;
  std::string scratch;                                 // a folder for checkpoints, which are removed
  std::function<void(std::int64_t steps)> heard = {};  // so many steps were computed; of any of its threads
  std::function<bool()> interrupted = {};              // true: it throws Interrupted; of any of its threads
};

// Bytes of a node, the most at once.
struct RehearsedNode {
  std::size_t actors = 0;   // with messages
  std::size_t program = 0;  // what any process takes, threads' scratch, transport
  std::size_t journal = 0;  // when the run ends
  std::size_t data = 0;
  std::size_t peak() const { return actors + program + journal + data; }
};

struct Rehearsal {
  std::vector<double> step_seconds;  // of virtual time, without warm_up; of all companions, sorted
  double quantile(double share) const;
  std::map<std::string, double> bins;  // of the bill, thread-seconds of those steps
  std::vector<RehearsedNode> nodes;
  double frames_a_step = 0;
  bool early = false;  // its time was over: the last evaluation and answers are not in it
  int worlds = 0;      // that were computed side by side
  double took_s = 0;   // of real time
};

// Throws Error: it reports a problem, or has no end.
Rehearsal rehearse(const RehearsalOptions& options);

}  // namespace troupe
