// troupe bench hardware: measures this machine into a hardware file, as device.hardware and --cluster name one.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct BenchHardwareOptions {
  std::string out;   // file to write; empty: standard output
  std::string name;  // of the hardware; empty: the machine's
  std::string like;  // a hardware file: what can't be measured here is taken from it; empty: cpu, or h100 on a GPU
  std::string config_path;  // whose products count for product_share; empty: as `bench ops`
  std::vector<std::string> sets;
};

int bench_hardware(const BenchHardwareOptions& options);

}  // namespace troupe
