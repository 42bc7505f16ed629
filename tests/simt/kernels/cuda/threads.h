// The twin of kernels/cuda/threads.h for the processor.
#pragma once

#include <cuda_runtime.h>

#include "kernels/base/check.h"

namespace troupe::cuda {

inline void keep_here(int&) {}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared());
}

inline void insist(bool fact) { CHECK(fact, "a kernel met what can't be"); }

}  // namespace troupe::cuda
