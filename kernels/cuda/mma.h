// Tensor cores and the copies that feed them, as sm_80 and later have them. All 32 lanes of a warp call together.
// Fragments (PTX ISA, mma.m16n8k16): of lane l, g = l / 4 and t = l % 4,
//   a[0..3]  rows g, g + 8, g, g + 8;  columns 2t, 2t + 1 of 0..7 (a[0], a[1]) and of 8..15 (a[2], a[3])
//   b[0..1]  column g;  rows 2t, 2t + 1 of 0..7 and of 8..15
//   c[0..3]  row g, columns 2t, 2t + 1; row g + 8, the same columns
// A register of bfloat16 holds two neighbours, the first in its lower half. tests/simt has a twin of this file.
#pragma once

#include <cuda_runtime.h>

namespace troupe::cuda {

// c += a b in float32: (16, 16) times (16, 8).
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned shared_address(const void* memory) {
  return static_cast<unsigned>(__cvta_generic_to_shared(memory));
}

// Four matrices of 8 x 8 two-byte elements from shared memory. Lane l gives where row l % 8 of matrix l / 8 begins (16
// bytes, aligned); to[i] of lane l: of matrix i, row l / 4, elements 2 (l % 4) and the next.
__device__ inline void load_matrices(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row)));
}
// The same of the transposed matrices: rows 2 (l % 4) and the next, element l / 4.
__device__ inline void load_transposed(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row)));
}

// Two floats rounded to bfloat16 (nearest, ties to even), `low` in the lower half.
__device__ inline unsigned pack_halves(float low, float high) {
  unsigned halves;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(halves) : "f"(high), "f"(low));
  return halves;
}
// 2^x within 2 ulp, where the result is a normal number; else 0 or infinity. One instruction; tests/simt is exact.
__device__ inline float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(power) : "f"(x));
  return power;
}

// 16 bytes from global into shared memory, both aligned, without a register between: the first `bytes` (0..16) of them,
// then zeros. They are there after a wait by the same thread, for others after a barrier behind it.
__device__ inline void copy_async(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(bytes));
}
// Ends a group of copies.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;\n"); }
// Until at most `left` of the newest groups are under way.
template <int left>
__device__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(left));
}

}  // namespace troupe::cuda
