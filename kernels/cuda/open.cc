#include "kernels/cuda/open.h"

#include <fmt/format.h>

#include "kernels/cuda/device.h"

namespace troupe {

namespace {

// Machine code of 9.0a runs on 9.0 alone. Most kernels are compiled for 8.0 too, but there a block has less shared memory
// than some of them ask for.
bool has_kernels(const Gpu& gpu) { return gpu.major == 9 && gpu.minor == 0; }

Gpu look_at(int index) {
  Gpu gpu;
  cudaDeviceProp properties{};
  const cudaError_t result = cudaGetDeviceProperties(&properties, index);
  if (result != cudaSuccess) {
    gpu.problem = cudaGetErrorString(result);
    return gpu;
  }
  gpu.name = properties.name;
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.multiprocessors = properties.multiProcessorCount;
  gpu.memory = properties.totalGlobalMem;
  if (!has_kernels(gpu))
    gpu.problem =
        fmt::format("is of compute capability {}.{}; this program's kernels are for 9.0", gpu.major, gpu.minor);
  return gpu;
}

}  // namespace

Gpus look_for_gpus() {
  Gpus gpus;
  int count = 0;
  cudaRuntimeGetVersion(&gpus.runtime);
  cudaDriverGetVersion(&gpus.driver);
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) gpus.problem = cudaGetErrorString(result);
  for (int i = 0; i < count; ++i) gpus.all.push_back(look_at(i));
  if (gpus.all.empty() && gpus.problem.empty()) gpus.problem = "no GPU is there";
  return gpus;
}

void ask_free_memory(int index, Gpu& gpu) {
  cudaError_t result = cudaSetDevice(index);
  if (result == cudaSuccess) result = cudaMemGetInfo(&gpu.free, &gpu.memory);
  if (result != cudaSuccess) gpu.problem = fmt::format("can't be opened: {}", cudaGetErrorString(result));
}

bool is_processors_memory(const void* data) {
  cudaPointerAttributes attributes{};
  cuda::must(cudaPointerGetAttributes(&attributes, data), "asking whose memory it is");
  return attributes.type == cudaMemoryTypeUnregistered;
}

std::unique_ptr<MeasuredDevice> open_cuda(const CudaOptions& options) {
  const Gpus gpus = look_for_gpus();
  if (!gpus.problem.empty()) throw Error("cuda: {}", gpus.problem);
  if (options.index >= static_cast<int>(gpus.all.size()))
    throw Error("cuda: there is no GPU {}, there are {}", options.index, gpus.all.size());
  const Gpu& gpu = gpus.all[static_cast<std::size_t>(options.index)];
  if (!gpu.problem.empty()) throw Error("cuda: GPU {} ({}) {}", options.index, gpu.name, gpu.problem);
  return std::make_unique<CudaDevice>(options);
}

}  // namespace troupe
