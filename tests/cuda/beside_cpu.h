// An op on CUDA's kernels and the same op on the CPU's: what both leave in the memory of the op's tensors.
#pragma once

#include "kernels/op.h"

namespace troupe::test {

constexpr Dtype kTypes[] = {Dtype::f32, Dtype::bf16};

void run_on_cpu(const Op& op);

// Runs the op on CUDA's kernels in its tensors' own memory. True if every byte that they span is then what the CPU's
// kernels would have left there, under several orders of threads where those are drawn.
bool like_cpu(const Op& op);

}  // namespace troupe::test
