// What this processor can do (kernels/cpu/limits.h), as one line of JSON: ./dev bench divides by it.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>

#include "kernels/cpu/limits.h"
#include "kernels/cpu/math.h"

using namespace troupe::cpu;

namespace {
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

int main() try {
  const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
  const double bfloat16 = peak_bfloat16_gflops(now);
  fmt::print("{{\"cores\": {}, \"instructions\": \"{}\", \"float32_gflops\": {:.1f}, ", cores,
             kLanes == 16 ? "AVX-512" : "AVX2", peak_float32_gflops(now));
  if (bfloat16 > 0) fmt::print("\"bfloat16_gflops\": {:.1f}, ", bfloat16);
  fmt::print("\"memory_gbytes_per_second\": {:.1f}, \"memory_gbytes_per_second_all_cores\": {:.1f}}}\n",
             peak_memory_gbytes_per_second(1, now), peak_memory_gbytes_per_second(cores, now));
  return 0;
} catch (const std::exception& problem) {
  fmt::print(stderr, "limits: {}\n", problem.what());
  return 1;
}
