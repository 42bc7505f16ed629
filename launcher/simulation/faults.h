// Faults: how often, and how hard, a simulated world is struck. A chance is a probability, a range is drawn from evenly
// on a logarithmic scale. The defaults are those of a plain `troupe simulate`; a file of configs/faults/ or
// `--fault KEY=VALUE` changes them. Law: a fault is drawn from seed and name alone, so that changing one leaves the rest.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct Range {
  double from = 0, to = 0;
};
struct Fault {
  double chance = 0;  // that a world has it
  Range size;         // probability per frame, factor, microseconds: the member says
};

struct NetworkFaults {
  Range latency_us{2, 500}, bytes_per_us{5, 10'000};
  Fault jitter{0.5, {1, 4}};            // in latencies
  Fault drop{0.33, {0.001, 0.05}};      // probability per frame
  Fault duplicate{0.33, {0.001, 0.1}};  // probability per frame
  Fault reorder{0.33, {0.01, 0.3}};     // probability per frame to be held back
  Fault corrupt{0.33, {0.001, 0.03}};   // probability per frame
  Fault partition{0.25, {1e3, 3e6}};    // a link is cut so many us
  double one_way = 0.5;                 // and carries frames the other way
};
struct NodeFaults {
  Fault slow{0.25, {2, 50}};  // a node's segments take so many times as long, for a while
  Range losses{1, 3};         // how many, with --losses
  double zombie = 0.25;       // that a lost node runs on
  Range back_after_us{1, 2e6};
  double whole_run = 0.25;  // the run falls and goes on in another layout
};
struct DiskFaults {
  Fault full{0.1, {1e3, 2e5}};    // after so many bytes
  Fault fall{0.25, {1, 200}};     // with --losses: the machine falls at this primitive
  Fault slow{0.25, {1, 20'000}};  // us a job
};
struct Faults {
  NetworkFaults network;
  NodeFaults nodes;
  DiskFaults disk;
};

// Every key with its place: "network.drop.chance".
struct FaultKey {
  std::string name;
  double* place;
  double least, most;
};
std::vector<FaultKey> fault_keys(Faults& faults);

// A file over the defaults, then "KEY=VALUE" each. Throws Error naming the place: an unknown key, a value out of range.
Faults load_faults(const std::string& path, const std::vector<std::string>& sets);
Faults faults_from_text(const std::string& text, const std::string& file_name, const std::vector<std::string>& sets);

}  // namespace troupe
