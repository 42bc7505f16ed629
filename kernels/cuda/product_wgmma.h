// Products of bfloat16 on warpgroups (sm_90a), of operands whose rows begin at multiples of 16 bytes.
#pragma once

#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

// What a row of c depends on is not looked at: it never decides.
bool takes_wgmma(const Product& op);
void run_wgmma(const Product& op, Queue& queue);  // REQUIRES: takes_wgmma

}  // namespace troupe::cuda
