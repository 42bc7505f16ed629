// What a kernel's threads need and C++ has no word for. tests/simt has a twin of this file: everything else in
// kernels/cuda is plain C++ with CUDA's names.
#pragma once

#include <cuda_runtime.h>

namespace troupe::cuda {

// The shared memory that the launch asked for.
template <typename T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

// The compiler works out nothing that comes from `value` ahead of this place: what it keeps ready takes registers.
__device__ inline void keep_here(int& value) { asm volatile("" : "+r"(value)); }

// What can't be stops the GPU: an index that leads out of its tensor reads or writes nothing.
__device__ inline void insist(bool fact) {
  if (!fact) __trap();
}

}  // namespace troupe::cuda
