// What the kernels of products share.
#pragma once

#include "kernels/cuda/view.h"
#include "kernels/op.h"

namespace troupe::cuda {

class Queue;

// A product of two bfloat16 matrices, on tensor cores.
void multiply_halves(const Product& op, Queue& queue);

// Sums of columns col .. col + 3 and what comes after the last k: bias, then add.
__device__ inline float4 finished(float4 sums, const View& bias, const View& add, std::int64_t row, std::int64_t col) {
  if (bias) {
    const float4 more = bias.quad(0, col);
    sums = make_float4(sums.x + more.x, sums.y + more.y, sums.z + more.z, sums.w + more.w);
  }
  if (add) {
    const float4 more = add.quad(row, col);
    sums = make_float4(sums.x + more.x, sums.y + more.y, sums.z + more.z, sums.w + more.w);
  }
  return sums;
}

}  // namespace troupe::cuda
