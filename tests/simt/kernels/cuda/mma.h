// The twin of kernels/cuda/mma.h for the processor. A copy happens when it is waited for, so that one without a wait is
// seen.
#pragma once

#include <cuda_runtime.h>

namespace troupe::cuda {

void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
void load_matrices(unsigned (&to)[4], const void* row);
void load_transposed(unsigned (&to)[4], const void* row);
unsigned pack_halves(float low, float high);
float power_of_two(float x);
void copy_async(void* shared, const void* global, int bytes = 16);
void copy_async_commit();
void copy_async_wait_for(int left);
template <int left>
void copy_async_wait() {
  copy_async_wait_for(left);
}

}  // namespace troupe::cuda
