// Where a tensor's rows begin, for kernels that move 16 bytes at once.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace troupe::cuda {

// Every row begins at a multiple of 16 bytes. The stride counts even where there is one row: it goes the same way among
// others.
inline bool rows_aligned(const Tensor& t) {
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 &&
         t.stride * static_cast<std::int64_t>(bytes_of(t.dtype)) % 16 == 0;
}

}  // namespace troupe::cuda
