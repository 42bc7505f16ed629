// The twin of kernels/cuda/bulk.h for the processor. A box arrives when its barrier is waited for, so that one without a
// wait is seen; until then its place holds no number that anybody wrote.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.h"
#include "kernels/cuda/product.h"

namespace troupe::cuda {

constexpr int kBoxColumns = 64, kBoxRowsMax = 256;

struct alignas(64) BoxMap {
  const std::uint16_t* data;
  std::int64_t rows, cols, stride;
  int box_rows;
  unsigned char rest[88];
};
static_assert(sizeof(BoxMap) == 128);
BoxMap box_map(const HalfMatrix& matrix, int box_rows);

struct Barrier {
  unsigned long long state;
};

void begin_barrier(Barrier& barrier, int arrivals);
void arrive(Barrier& barrier);
void arrive_expecting(Barrier& barrier, int bytes);
void wait(Barrier& barrier, int parity);
void copy_box(void* to, const BoxMap& from, int row, int col, Barrier& done);
inline void fetch_box(const BoxMap&, int, int) {}
inline void fetch_map(const BoxMap&) {}
template <int count>
void shrink_registers() {}
template <int count>
void grow_registers() {}

}  // namespace troupe::cuda
