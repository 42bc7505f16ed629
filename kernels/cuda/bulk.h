// What moves whole boxes of a matrix into shared memory and tells when they are there: sm_90's bulk copies (TMA), barriers
// in shared memory, and registers that warpgroups give each other. tests/simt has a twin of this file.
// A box is `rows` rows of 64 bfloat16 columns; it becomes a panel as warpgroup.h reads it. Beyond the matrix: zeros.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/mma.h"
#include "kernels/cuda/product.h"

namespace troupe::cuda {

constexpr int kBoxColumns = 64, kBoxRowsMax = 256;

// A matrix as the copies see it: what CUDA calls CUtensorMap.
struct alignas(64) BoxMap {
  unsigned long long words[16];
};
// REQUIRES: rows at multiples of 16 bytes, at least one row and one column; 0 < box_rows <= kBoxRowsMax.
BoxMap box_map(const HalfMatrix& matrix, int box_rows);

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
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::"r"(
          shared_address(to)),
      "l"(&from), "r"(col), "r"(row), "r"(shared_address(&done))
      : "memory");
}
// The same box into the L2 cache.
__device__ inline void fetch_box(const BoxMap& from, int row, int col) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];\n" ::"l"(&from), "r"(col), "r"(row)
               : "memory");
}
__device__ inline void fetch_map(const BoxMap& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
}

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
