// Ops on the device that this test program is of: the CPU's kernels in kernels_test, CUDA's in simt_test and gpu_test.
#pragma once

#include <vector>

#include "kernels/op.h"

namespace troupe::test {

// The op's tensors stand in the processor's memory.
void run_op(const Op& op);
// Several in order, those that a device takes into one launch together.
void run_ops(const Ops& ops);
// REQUIRES: the device is CUDA's, and products are such that go to warpgroups (takes_wgmma).
void run_on_warpgroups(const Product& op);
void run_on_warpgroups(const Ops& ops);
// A tensor as the device's scaled products read it: codes row by row along k, and scales, of each tile along k those of
// all rows (kernels/cuda/quantize.h). REQUIRES: the device is CUDA's.
struct QuantizedThere {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
};
QuantizedThere quantize_there(const Tensor& x, const Scaling& scaling, bool down);

bool on_cpu();
// Float32 results of products and of attention are chains in the order that op.h gives; bfloat16 ones too?
inline bool half_products_are_chains() { return on_cpu(); }

}  // namespace troupe::test
