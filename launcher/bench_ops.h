// troupe bench ops: how fast this device does each op of a model, beside what it does at its best.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct BenchOptions {
  std::string config_path;  // empty: configs/moe_0b85.toml on a GPU, configs/quickstart.toml on a processor
  std::vector<std::string> sets;
  std::string device;             // cpu, cuda; empty: as the configuration says
  std::vector<std::string> only;  // names of ops; empty: all
  std::string json;               // file to write
  int repeats = 5;                // measured, after some that are not
};

// Prints a table, the op that takes most of a step first. Nothing is trained and nothing is kept.
int bench_ops(const BenchOptions& options);

}  // namespace troupe
