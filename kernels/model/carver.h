// Carver: lays tensors out one after another in a block of memory. With a null base it only measures, so that the plan
// and the run use the same layout code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

class Carver {
 public:
  explicit Carver(void* base = nullptr) : base_(reinterpret_cast<std::uintptr_t>(base)) {}
  // A (rows, cols) tensor on the next 64-byte boundary; absent when either is zero.
  Tensor tensor(std::int64_t rows, std::int64_t cols, Dtype dtype) {
    if (rows <= 0 || cols <= 0) return {};
    const std::size_t begin = (used_ + 63) / 64 * 64;
    used_ = begin + static_cast<std::size_t>(rows * cols) * bytes_of(dtype);
    return {reinterpret_cast<void*>(base_ + begin), rows, cols, cols, dtype};
  }
  std::size_t used() const { return used_; }

 private:
  std::uintptr_t base_;
  std::size_t used_ = 0;
};

}  // namespace troupe
