// What moves whole boxes of a matrix into shared memory and back: sm_90's bulk copies (TMA), the barriers that tell when
// boxes are there, and registers that warpgroups give each other. tests/simt has a twin of this file.
// A box is some rows of 128 bytes, of which the 16-byte chunk c of row r stands at place c ^ (r % 8): a panel as
// warpgroup.h reads it. Beyond the matrix are zeros, and nothing is written.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.h"
#include "kernels/tensor.h"

namespace troupe::cuda {

constexpr int kBoxWidth = 128, kBoxRowsMax = 256;  // bytes; rows

// A matrix as the copies see it: what CUDA calls CUtensorMap.
struct alignas(64) BoxMap {
  unsigned long long words[16];
};
// REQUIRES: rows are whole chunks of 16 bytes (of a smaller rest the copies would write and read all), at least one row
// and one column; 0 < box_rows <= kBoxRowsMax.
BoxMap box_map(const Tensor& matrix, int box_rows);

// Arrivals and bytes are awaited by phases: parity 0, 1, 0, ...
struct Barrier {
  unsigned long long state;
};

// One thread, before a barrier of all threads; `arrivals`: of each phase.
__device__ inline void begin_barrier(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
__device__ inline void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&barrier)) : "memory");
}
// Arrives, and the phase waits for so many bytes of boxes too.
__device__ inline void arrive_expecting(Barrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of this parity is over.
__device__ inline void wait(Barrier& barrier, int parity) {
  unsigned over = 0;
  while (over == 0)
    asm volatile(
        "{ .reg .pred over; mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2; selp.u32 %0, 1, 0, over; }\n"
        : "=r"(over)
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
}

// The box whose first element is (row, col) into shared memory, a multiple of 1,024 bytes; its bytes go to the barrier.
__device__ inline void copy_box(void* to, const BoxMap& from, int row, int col, Barrier& done) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];\n" ::"r"(shared_address(to)),
      "l"(&from), "r"(col), "r"(row), "r"(shared_address(&done))
      : "memory");
}

// So many bytes as they stand, all of them multiples of 16: places and count.
__device__ inline void copy_bytes(void* to, const void* from, int bytes, Barrier& done) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                   shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(&done))
               : "memory");
}

// A box that was written into shared memory: by threads that met behind fence_for_products(), of whom one calls this. The
// place may be written again when its group has been read, and the group is over when it has been waited for.
__device__ inline void write_box(const BoxMap& to, int row, int col, const void* from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(&to),
               "r"(col), "r"(row), "r"(shared_address(from))
               : "memory");
}
__device__ inline void write_boxes_commit() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
// Until at most `left` of this thread's newest groups are still to be read.
template <int left>
__device__ void write_boxes_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(left) : "memory");
}
__device__ inline void write_boxes_wait() { asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory"); }

// The 128 threads of a warpgroup meet.
__device__ inline void meet_group(int group) { asm volatile("bar.sync %0, 128;\n" ::"r"(group + 1) : "memory"); }

// From here on a thread of this warpgroup has so many registers. All its threads come here once.
template <int count>
__device__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(count));
}
template <int count>
__device__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(count));
}

}  // namespace troupe::cuda
