// CUDA's runtime for the host: an error is an exception with what was tried, a launch is a call.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/base/error.h"

namespace troupe::cuda {

// Throws Error "cuda: WHAT: CUDA's own words".
inline void must(cudaError_t result, const char* what) {
  if (result != cudaSuccess) throw Error("cuda: {}: {}", what, cudaGetErrorString(result));
}

// Where an op's kernels go, in order, and memory that lasts until the op's end.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual cudaStream_t stream() = 0;
  // Products that can go to warpgroups do (kernels/cuda/product_wgmma.h).
  virtual bool warpgroups() const { return false; }
  // Device memory, aligned to 256 bytes, not initialised; the next op may have the same. Bytes.
  virtual void* take_bytes(std::size_t size) = 0;
  template <typename T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
};

constexpr std::size_t kSharedByDefault = 48 * 1024;  // a block has more only where the kernel was told so

template <typename... Parameters, typename... Arguments>
void launch(Queue& queue, dim3 grid, dim3 block, std::size_t shared_bytes, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // nothing to do is no error
  if (shared_bytes > kSharedByDefault)
    must(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
         "a kernel's shared memory");
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = queue.stream();
  must(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launching a kernel");
}

// Of the GPU of this thread: blocks that stay and take their work in turns are so many.
inline unsigned multiprocessors() {
  int device = 0, count = 0;
  must(cudaGetDevice(&device), "asking for the GPU");
  must(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "asking for its multiprocessors");
  return static_cast<unsigned>(count);
}

// Blocks of `size` that cover `count`.
inline unsigned blocks_for(std::int64_t count, std::int64_t size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

}  // namespace troupe::cuda
