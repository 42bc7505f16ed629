// The twin of kernels/cuda/warpgroup_forms.h for the processor. A left operand in registers is looked at when its product
// is waited for: whoever changed it before is told.
#pragma once

#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

struct Source {
  Operand operand{};

  Source() = default;
  explicit Source(const Operand& x) : operand(x) {}
  Source at(int bytes) const {
    return Source({static_cast<const unsigned char*>(operand.start) + bytes, operand.panel});
  }
};

template <int steps>
void hold(unsigned (&)[steps][4]) {}

void multiply_fresh_later(float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across);
void multiply_held_later(float* c, int columns, const unsigned* a, const Operand& b, bool b_across, bool fresh);

template <bool a_across, bool b_across, bool fresh = false, int count>
void group_multiply_add(float (&c)[count], const Source& a, const Source& b) {
  if (fresh)
    multiply_fresh_later(c, 2 * count, a.operand, b.operand, a_across, b_across);
  else
    multiply_later(c, 2 * count, a.operand, b.operand, a_across, b_across);
}
template <bool b_across, bool fresh = false, int count>
void group_multiply_add(float (&c)[count], const unsigned (&a)[4], const Source& b) {
  multiply_held_later(c, 2 * count, a, b.operand, b_across, fresh);
}

}  // namespace troupe::cuda
