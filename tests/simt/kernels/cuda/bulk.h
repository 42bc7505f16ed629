// The twin of kernels/cuda/bulk.h for the processor. A box arrives when its barrier is waited for, so that one without a
// wait is seen; until then its place holds no number that anybody wrote. One that is written leaves when it is waited for.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.h"
#include "kernels/tensor.h"

namespace troupe::cuda {

constexpr int kBoxWidth = 128, kBoxRowsMax = 256;

struct alignas(64) BoxMap {
  unsigned char* data;
  std::int64_t rows, row_bytes, stride_bytes;
  int element, box_rows;
  unsigned char rest[88];
};
static_assert(sizeof(BoxMap) == 128);
BoxMap box_map(const Tensor& matrix, int box_rows);

struct Barrier {
  unsigned long long state;
};

void begin_barrier(Barrier& barrier, int arrivals);
void arrive(Barrier& barrier);
void arrive_expecting(Barrier& barrier, int bytes);
void wait(Barrier& barrier, int parity);
void copy_box(void* to, const BoxMap& from, int row, int col, Barrier& done);
void copy_bytes(void* to, const void* from, int bytes, Barrier& done);
void write_box(const BoxMap& to, int row, int col, const void* from);
void write_boxes_commit();
void write_boxes_wait_for(int left);
template <int left>
void write_boxes_read() {
  write_boxes_wait_for(left);
}
inline void write_boxes_wait() { write_boxes_wait_for(0); }
void meet_group(int group);
template <int count>
void shrink_registers() {}
template <int count>
void grow_registers() {}

}  // namespace troupe::cuda
