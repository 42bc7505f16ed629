// The digest of a run of elements (formula: Digest in kernels/op.h) as threads add it up: modulo 2^64, so in any order.
#pragma once

#include "kernels/cuda/quads.h"

namespace troupe::cuda {

// Of a tensor and of its copy.
struct Digests {
  unsigned long long x, copy;
};

__device__ inline unsigned long long digest_term(unsigned bits, std::uint64_t index) {
  const std::uint64_t mixed = index * 0x9E3779B97F4A7C15ULL;
  return (std::uint64_t{bits} + 1) * ((mixed ^ mixed >> 32) << 1 | 1U);
}
// Four neighbours' terms; `count` of them are there, of whole quads all or none. `index`: of the first.
template <bool whole>
__device__ unsigned long long digest_quad(bool wide, uint4 bits, std::int64_t count, std::uint64_t index) {
  if (!wide) bits = make_uint4(bits.x & 0xFFFFU, bits.x >> 16, bits.y & 0xFFFFU, bits.y >> 16);
  if (count <= 0) return 0;
  unsigned long long sum = digest_term(bits.x, index);
  if (whole || count > 1) sum += digest_term(bits.y, index + 1);
  if (whole || count > 2) sum += digest_term(bits.z, index + 2);
  if (whole || count > 3) sum += digest_term(bits.w, index + 3);
  return sum;
}

// The sum over the block's threads (whole warps, all of them call), for the first thread.
__device__ inline Digests digests_of_block(Digests own) {
  __shared__ Digests warps[32];
  const unsigned thread = threadIdx.x + threadIdx.y * blockDim.x, threads = blockDim.x * blockDim.y;
  for (int distance = 16; distance > 0; distance /= 2) {
    own.x += __shfl_xor_sync(kWarp, own.x, distance);
    own.copy += __shfl_xor_sync(kWarp, own.copy, distance);
  }
  if (thread % 32 == 0) warps[thread / 32] = own;
  __syncthreads();
  for (unsigned w = 1; thread == 0 && w < threads / 32; ++w) {
    own.x += warps[w].x;
    own.copy += warps[w].copy;
  }
  return own;
}

// out[0..3] = the sum of `count` parts, by one block of threads.
__device__ inline void fold_digests(const Digests* parts, unsigned count, unsigned* out) {
  Digests own{0, 0};
#pragma unroll 4
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    own.x += parts[i].x;
    own.copy += parts[i].copy;
  }
  const Digests all = digests_of_block(own);
  if (threadIdx.x != 0) return;
  out[0] = static_cast<unsigned>(all.x);
  out[1] = static_cast<unsigned>(all.x >> 32);
  out[2] = static_cast<unsigned>(all.copy);
  out[3] = static_cast<unsigned>(all.copy >> 32);
}

// out (1, 4) i32 = the sum of `count` parts.
void write_digest(const Digests* parts, unsigned count, const Tensor& out, Queue& queue);

}  // namespace troupe::cuda
