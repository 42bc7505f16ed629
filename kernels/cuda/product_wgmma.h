// Products of bfloat16 on warpgroups (sm_90a), of operands whose rows are whole chunks of 16 bytes: bulk copies know no
// smaller ones.
#pragma once

#include <vector>

#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

inline bool is_in_chunks(const Tensor& half) {
  return half.dtype == Dtype::bf16 && rows_aligned(half) && half.cols % 8 == 0;
}

// What a row of c depends on is not looked at: it never decides.
bool takes_wgmma(const Product& op);
bool takes_wgmma(const GroupedProduct& op);
void run_wgmma(const Product& op, Queue& queue);  // REQUIRES: takes_wgmma
void run_wgmma(const GroupedProduct& op, Queue& queue);

// The first of these in one launch; how many they are. REQUIRES: each takes_wgmma, and c += a^T b and nothing else.
std::size_t run_gradients_wgmma(const std::vector<const Product*>& products, Queue& queue);

}  // namespace troupe::cuda
