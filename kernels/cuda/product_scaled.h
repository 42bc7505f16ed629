// Products in FP8 (Scaling in kernels/op.h) on warpgroups, of operands as they stand: codes are made here, in working
// memory, but for weights that have some.
#pragma once

#include "kernels/cuda/quantize.h"
#include "kernels/op.h"

namespace troupe::cuda {

// The product of op's operands, which are quantized already; neither has a code where its sum is over nothing.
void multiply_codes(const Product& op, const Codes& a, const Codes& b, Queue& queue);

// REQUIRES: scaled.
void run_scaled(const Product& op, Queue& queue);
void run_scaled(const GroupedProduct& op, Queue& queue);

// The first of these in one launch, and few more for their codes; how many they are. REQUIRES: each c += a^T b and nothing
// else, scaled in tiles one wide.
std::size_t run_gradients_scaled(const std::vector<const Product*>& products, Queue& queue);

}  // namespace troupe::cuda
