// The twin of kernels/cuda/threads.h for the processor.
#pragma once

#include <cuda_runtime.h>

namespace troupe::cuda {

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared());
}

}  // namespace troupe::cuda
