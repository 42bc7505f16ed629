// The twin of kernels/cuda/warpgroup.h for the processor. A product happens when it is waited for, so that whoever
// writes over its operands too early is seen.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.h"

namespace troupe::cuda {

constexpr int kPanelRow = 128, kPanelAtom = 8 * kPanelRow;

inline int panel_offset(int row, int chunk) { return row * kPanelRow + ((chunk ^ (row & 7)) << 4); }

struct Operand {
  const void* start;
  int panel;
};

inline void group_fence() {}
void group_commit();
void group_wait_for(int left);
template <int left>
void group_wait() {
  group_wait_for(left);
}
inline void fence_for_products() {}
void store_matrices(void* row, const unsigned (&from)[4]);
template <int count>
void hold(float (&)[count]) {}

void multiply_later(float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across);

template <bool a_across, bool b_across, int count>
void group_multiply_add(float (&c)[count], const Operand& a, const Operand& b) {
  multiply_later(c, 2 * count, a, b, a_across, b_across);
}

}  // namespace troupe::cuda
