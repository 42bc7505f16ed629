// Carver: lays tensors out one after another in two blocks of memory, one of each place (kernels/device.h). With null
// bases it only measures, so that the plan and the run use the same layout code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

class Carver {
 public:
  explicit Carver(void* device = nullptr, void* shared = nullptr)
      : device_{reinterpret_cast<std::uintptr_t>(device)}, shared_{reinterpret_cast<std::uintptr_t>(shared)} {}
  // A (rows, cols) tensor on the next 64-byte boundary of a block; absent when either is zero.
  Tensor tensor(std::int64_t rows, std::int64_t cols, Dtype dtype) { return cut(device_, rows, cols, dtype); }
  Tensor shared_tensor(std::int64_t rows, std::int64_t cols, Dtype dtype) { return cut(shared_, rows, cols, dtype); }
  std::size_t used() const { return device_.used; }
  std::size_t shared_used() const { return shared_.used; }

 private:
  struct Block {
    std::uintptr_t base = 0;
    std::size_t used = 0;
  };
  static Tensor cut(Block& block, std::int64_t rows, std::int64_t cols, Dtype dtype) {
    if (rows <= 0 || cols <= 0) return {};
    const std::size_t begin = (block.used + 63) / 64 * 64;
    block.used = begin + static_cast<std::size_t>(rows * cols) * bytes_of(dtype);
    return {reinterpret_cast<void*>(block.base + begin), rows, cols, cols, dtype};
  }
  Block device_, shared_;
};

}  // namespace troupe
