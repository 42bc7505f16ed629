// The twin of kernels/cuda/codes.h for the processor. A block of 32 products loses the bits that an H100 would lose.
#pragma once

#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

unsigned pack_codes(float low, float high);

void multiply_codes_later(float* c, int columns, const Operand& a, const Operand& b, bool fresh);

template <bool fresh, int count>
void group_multiply_codes(float (&c)[count], const Operand& a, const Operand& b) {
  multiply_codes_later(c, 2 * count, a, b, fresh);
}

}  // namespace troupe::cuda
