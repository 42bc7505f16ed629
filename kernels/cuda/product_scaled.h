// Products in FP8 (Scaling in kernels/op.h) on warpgroups, of operands as they stand: codes are made here, in working memory.
#pragma once

#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

// REQUIRES: scaled.
void run_scaled(const Product& op, Queue& queue);
void run_scaled(const GroupedProduct& op, Queue& queue);

}  // namespace troupe::cuda
