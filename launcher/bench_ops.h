// troupe bench ops: how fast this device does each op of a model, beside what it does at its best.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

struct BenchOptions {
  std::string config_path;  // empty: configs/moe_0b85.toml on a GPU, configs/quickstart.toml on a processor
  std::vector<std::string> sets;
  std::string device;             // cpu, cuda; empty: as the configuration says
  std::vector<std::string> only;  // names of ops; empty: all
  std::string json;               // file to write
  int repeats = 5;                // measured, after some that are not
};

// The configuration as it is timed: one compute thread of this machine. path empty: as above; device empty: as it says.
Config timed_config(const std::string& path, const std::vector<std::string>& sets, const std::string& device);

// Before anything is measured: figures that can't be kept took minutes for nothing. Throws Error: there is no such folder, or
// it is no file; an empty path is none.
void expect_place_for(const std::string& option, const std::string& path);

struct ModelRates {
  double copy_gbytes_per_second = 0;  // of a copy that no cache holds, read and written
  double step_product_tflops = 0;     // of all products of a step
};
// Of one compute thread. REQUIRES: timed_config.
ModelRates model_rates(const Config& config, int repeats);

// Prints a table, the op that takes most of a step first. Nothing is trained and nothing is kept.
int bench_ops(const BenchOptions& options);

}  // namespace troupe
