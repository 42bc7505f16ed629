// One op on the device that this test program is of: the CPU's kernels in kernels_test, CUDA's in cuda_test.
#pragma once

#include "kernels/op.h"

namespace troupe::test {

// The op's tensors stand in the processor's memory.
void run_op(const Op& op);
// Several in order, those that a device takes into one launch together.
void run_ops(const Ops& ops);
// A product on warpgroups. False: this GPU has none, nothing was done.
bool run_on_warpgroups(const Product& op);
// Float32 results of products and of attention are chains in the order that op.h gives; bfloat16 ones too?
bool half_products_are_chains();

}  // namespace troupe::test
