// What one core of this processor can do: fused multiply-adds in registers, and a triad from memory. ./dev bench divides
// by it. Prints one line of JSON.
#include <fmt/core.h>

#include <chrono>
#include <vector>

#include "kernels/cpu/math.h"

using namespace troupe::cpu;

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kChains = 10;  // as many as hide the latency on every processor of these years
constexpr std::int64_t kRounds = 20'000'000;
constexpr std::size_t kTriad = std::size_t{1} << 25;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double gflops() {
  Vec sum[kChains] = {};
  const Vec a = broadcast(0.999F), b = broadcast(0.001F);
  const auto begin = Clock::now();
  for (std::int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 10
    for (int c = 0; c < kChains; ++c) sum[c] = fused(sum[c], a, b);
    asm volatile("" ::: "memory");
  }
  const double seconds = seconds_since(begin);
  Vec all = {};
  for (const Vec& one : sum) all += one;
  if (all[0] < 0) fmt::print(" ");  // so that it is used
  return 2.0 * kLanes * kChains * static_cast<double>(kRounds) / seconds * 1e-9;
}

double gbytes_per_second() {
  std::vector<float> a(kTriad, 1), b(kTriad, 2), c(kTriad, 3);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const auto begin = Clock::now();
    for (std::size_t i = 0; i < kTriad; ++i) a[i] = b[i] + 0.5F * c[i];
    asm volatile("" ::"r"(a.data()) : "memory");
    best = std::max(best, 3.0 * sizeof(float) * kTriad / seconds_since(begin) * 1e-9);
  }
  return best;
}

}  // namespace

int main() {
  double best = 0;
  for (int round = 0; round < 5; ++round) best = std::max(best, gflops());
  fmt::print("{{\"float32_gflops\": {:.1f}, \"memory_gbytes_per_second\": {:.1f}, \"instructions\": \"{}\"}}\n", best,
             gbytes_per_second(), kLanes == 16 ? "AVX-512" : "AVX2");
}
