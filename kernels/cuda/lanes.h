// Sums over a row in the order of kernels/cpu/math.h: lane l of sixteen takes columns l, l + 16, ... in order, then the
// lanes are folded pairwise. The row stands in shared memory, put there by the whole block, so that memory was read
// once, in wide pieces; the first sixteen threads of a warp are the lanes.
#pragma once

#include "kernels/cuda/quads.h"

namespace troupe::cuda {

constexpr int kReadAhead = 4;  // quads that a thread reads at once

// Floats that a row takes in shared memory.
__host__ __device__ constexpr int padded(std::int64_t cols) {
  return static_cast<int>((cols + kFold - 1) / kFold * kFold);
}

// The lane of thread `lane` (0..31) with more products of a and b; nothing for lanes beyond the sixteenth.
__device__ inline float add_products(float sum, const float* a, const float* b, int count, int lane) {
  if (lane >= kFold) return sum;
#pragma unroll 8
  for (int c = lane; c < count; c += kFold) sum = fmaf(a[c], b[c], sum);
  return sum;
}
// l with l + 8, then + 4, + 2, + 1. All 32 threads of the warp call it.
__device__ inline float fold_lanes(float sum) {
  for (int distance = kFold / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kWarp, sum, distance);
  return sum;
}

}  // namespace troupe::cuda
