#include "kernels/cpu/limits.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

constexpr int kArithmeticRounds = 60, kMemoryRounds = 10;  // short ones, so that some meet nobody else
constexpr std::int64_t kTurns = 400'000;
constexpr std::size_t kFloats = std::size_t{1} << 25;  // of each of three arrays: together more than any cache

template <typename Measure>
double best_of(int rounds, Measure measure) {
  double best = 0;
  for (int round = 0; round < rounds; ++round) best = std::max(best, measure());
  return best;
}

// ---- Arithmetic -----------------------------------------------------------------------------------------------------

// Independent chains, each an accumulator that never leaves its register: nothing in the loop touches memory.
template <typename V, int chains>
double gflops(Seconds now) {
  V sum[chains] = {};
  const V a = 0.999F - V{}, b = 0.001F - V{};
  const double begin = now();
  for (std::int64_t i = 0; i < kTurns; ++i) {
#pragma GCC unroll 32
    for (int c = 0; c < chains; ++c) {
      sum[c] = fused(sum[c], a, b);
      asm volatile("" : "+v"(sum[c]));  // all chains are alike, which the compiler must not know
    }
  }
  return 2.0 * (sizeof(V) / 4) * chains * kTurns / (now() - begin) * 1e-9;
}

template <typename V, int... chains>
double best_gflops(Seconds now) {
  return best_of(kArithmeticRounds, [now] { return std::max({gflops<V, chains>(now)...}); });
}

// vdpbf16ps: 32 products a vector. The other code of this program may not use the instruction, so it is asked for here.
[[gnu::target("avx512f,avx512bf16")]] double bfloat16_round(Seconds now) {
  __m512 sum[24] = {};
  const __m512bh a = {}, b = {};
  const double begin = now();
  for (std::int64_t i = 0; i < kTurns; ++i) {
#pragma GCC unroll 24
    for (int c = 0; c < 24; ++c) {
      sum[c] = _mm512_dpbf16_ps(sum[c], a, b);
      asm volatile("" : "+v"(sum[c]));  // products of zeros, which the compiler must not know
    }
  }
  return 64.0 * 24 * kTurns / (now() - begin) * 1e-9;
}

// ---- Memory ---------------------------------------------------------------------------------------------------------

struct Arrays {
  float *a, *b, *c;
  std::size_t count;
};

void triad(const Arrays& x) {
  const Vec half = broadcast(0.5F);
  for (std::size_t i = 0; i < x.count; i += kLanes) store(x.a + i, fused(half, load(x.c + i), load(x.b + i)));
  asm volatile("" ::: "memory");
}

void streamed_triad(const Arrays& x) {
  const Vec8 half = 0.5F - Vec8{};
  for (std::size_t i = 0; i < x.count; i += 8) {
    const __m256 b = _mm256_load_ps(x.b + i), c = _mm256_load_ps(x.c + i);
    _mm256_stream_ps(x.a + i, __m256(fused(half, Vec8(c), Vec8(b))));
  }
  _mm_sfence();
}

void reads(const Arrays& x) {
  Vec sum[8] = {};
  for (const float* from : {x.a, x.b, x.c})
    for (std::size_t i = 0; i < x.count; i += std::size_t{8} * kLanes)
      for (std::size_t s = 0; s < 8; ++s) sum[s] += load(from + i + s * kLanes);
  for (const Vec& one : sum) asm volatile("" ::"v"(one));
}

// All three pass over three arrays once.
double gbytes_per_second(void (*pass)(const Arrays&), const Arrays& arrays, std::size_t threads, Seconds now) {
  const std::size_t share = arrays.count / threads / 1024 * 1024;
  const double begin = now();
  std::vector<std::thread> others;
  const auto slice = [&](std::size_t i) {
    pass({arrays.a + i * share, arrays.b + i * share, arrays.c + i * share, share});
  };
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(slice, i);
  slice(0);
  for (std::thread& other : others) other.join();
  return 3.0 * sizeof(float) * static_cast<double>(share * threads) / (now() - begin) * 1e-9;
}

double best_gbytes_per_second(const Arrays& arrays, std::size_t threads, Seconds now) {
  return best_of(kMemoryRounds, [&] {
    double best = 0;
    for (const auto pass : {triad, streamed_triad, reads})
      best = std::max(best, gbytes_per_second(pass, arrays, threads, now));
    return best;
  });
}

}  // namespace

// Sixteen vectors of registers hold 14 accumulators and the operands, thirty-two hold 28.
double peak_float32_gflops(Seconds now) {
  const double narrow = best_gflops<Vec8, 8, 10, 12, 14>(now);
  return kLanes == 8 ? narrow : std::max(narrow, best_gflops<Vec, 8, 12, 16, 20, 24, 28>(now));
}

double peak_bfloat16_gflops(Seconds now) {
  return __builtin_cpu_supports("avx512bf16") ? best_of(kArithmeticRounds, [now] { return bfloat16_round(now); }) : 0;
}

double peak_memory_gbytes_per_second(std::size_t threads, Seconds now) {
  const std::unique_ptr<float, void (*)(void*)> memory(
      static_cast<float*>(std::aligned_alloc(4096, 3 * kFloats * sizeof(float))), std::free);
  if (!memory) throw Error("no memory for three arrays of {} MiB", kFloats * sizeof(float) >> 20);
  std::fill_n(memory.get(), 3 * kFloats, 1.0F);
  return best_gbytes_per_second({memory.get(), memory.get() + kFloats, memory.get() + 2 * kFloats, kFloats}, threads,
                                now);
}

}  // namespace troupe::cpu
