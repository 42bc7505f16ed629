// Products in FP8 (Scaling in kernels/op.h) on warpgroups, of operands as they stand: codes are made here, in working memory.
#pragma once

#include "kernels/cuda/quantize.h"
#include "kernels/op.h"

namespace troupe::cuda {

// The product of op's operands, which are quantized already; neither has a code where its sum is over nothing.
void multiply_codes(const Product& op, const Codes& a, const Codes& b, Queue& queue);

// REQUIRES: scaled.
void run_scaled(const Product& op, Queue& queue);
void run_scaled(const GroupedProduct& op, Queue& queue);

}  // namespace troupe::cuda
