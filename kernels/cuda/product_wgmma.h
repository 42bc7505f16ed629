// Products of bfloat16 on warpgroups (sm_90a): for large ones whose operands stand at multiples of 16 bytes.
#pragma once

#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

// A product as the kernel reads it. c (m, n), k the inner dimension.
struct WgmmaProblem {
  const std::uint16_t *a = nullptr, *b = nullptr;
  std::int64_t a_stride = 0, b_stride = 0;  // elements
  std::int64_t m = 0, n = 0, k = 0;
  Tensor c, bias, add;
  bool accumulate = false;
};

// The instruction set is there, and the operands' rows begin at multiples of 16 bytes. What a row of c depends on is not
// looked at: it never decides.
bool takes_wgmma(const Product& op);
void run_wgmma(const Product& op, Queue& queue);
// Several of one form, in one launch.
void run_wgmma(const std::vector<WgmmaProblem>& problems, bool transpose_a, bool transpose_b, Queue& queue);

}  // namespace troupe::cuda
