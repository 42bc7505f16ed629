// Counter-based random numbers (Philox 4x32-10), bit for bit those of kernels/base/random.h.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace troupe::cuda {

// One block of four words for a key and a counter (a, b).
__device__ inline uint4 philox(std::uint64_t key, std::uint64_t a, std::uint64_t b) {
  auto k0 = static_cast<unsigned>(key), k1 = static_cast<unsigned>(key >> 32);
  uint4 c = make_uint4(static_cast<unsigned>(a), static_cast<unsigned>(a >> 32), static_cast<unsigned>(b),
                       static_cast<unsigned>(b >> 32));
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c.x, p1 = std::uint64_t{0xCD9E8D57U} * c.z;
    c = make_uint4(static_cast<unsigned>(p1 >> 32) ^ c.y ^ k0, static_cast<unsigned>(p1),
                   static_cast<unsigned>(p0 >> 32) ^ c.w ^ k1, static_cast<unsigned>(p0));
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

// In [0, 1).
__device__ inline double uniform(std::uint64_t key, std::uint64_t a, std::uint64_t b) {
  const uint4 words = philox(key, a, b);
  const std::uint64_t word = std::uint64_t{words.y} << 32 | words.x;
  return static_cast<double>(word >> 11) * 0x1.0p-53;
}

// Standard normal. Its logarithm and cosine in double are within 2 units of theirs, so that the float32 may differ from
// the CPU's in its last bit where the double lies next to the middle of two of them: one draw in some 10^8.
__device__ inline float random_normal(std::uint64_t key, std::uint64_t a, std::uint64_t b = 0) {
  const uint4 words = philox(key, a, b);
  const double u = (words.x + 0.5) * 0x1.0p-32, v = words.y * 0x1.0p-32;
  return static_cast<float>(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

}  // namespace troupe::cuda
