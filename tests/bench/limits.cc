// What this processor can do (kernels/cpu/limits.h), as one line of JSON: ./dev bench divides by it.
#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <thread>

#include "kernels/cpu/limits.h"
#include "kernels/cpu/math.h"

using namespace troupe::cpu;

int main() try {
  const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
  const double bfloat16 = peak_bfloat16_gflops();
  fmt::print("{{\"cores\": {}, \"instructions\": \"{}\", \"float32_gflops\": {:.1f}, ", cores,
             kLanes == 16 ? "AVX-512" : "AVX2", peak_float32_gflops());
  if (bfloat16 > 0) fmt::print("\"bfloat16_gflops\": {:.1f}, ", bfloat16);
  fmt::print("\"memory_gbytes_per_second\": {:.1f}, \"memory_gbytes_per_second_all_cores\": {:.1f}}}\n",
             peak_memory_gbytes_per_second(1), peak_memory_gbytes_per_second(cores));
  return 0;
} catch (const std::exception& problem) {
  fmt::print(stderr, "limits: {}\n", problem.what());
  return 1;
}
