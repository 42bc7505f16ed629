// float32 arithmetic of kernels: the formulas and the order of kernels/cpu/math.h, so that results have the same bits.
// Fused multiply-adds are written out; the compiler contracts nothing (--fmad=false).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace troupe::cuda {

constexpr int kFold = 16;  // lanes of a sum over columns: lane l takes columns l, l + 16, ... in order
constexpr unsigned kWarp = 0xFFFFFFFFU;

// bfloat16 <-> float32: nearest, ties to even; a NaN stays one.
__device__ inline float widen(std::uint16_t half) { return __uint_as_float(static_cast<unsigned>(half) << 16); }
__device__ inline std::uint16_t narrow(float value) {
  const unsigned bits = __float_as_uint(value);
  const unsigned rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16, quiet = (bits >> 16) | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : rounded);
}
// Four neighbours, two a word, the first in the lower half.
__device__ inline float4 widen(uint2 halves) {
  return make_float4(__uint_as_float(halves.x << 16), __uint_as_float(halves.x & 0xFFFF0000U),
                     __uint_as_float(halves.y << 16), __uint_as_float(halves.y & 0xFFFF0000U));
}

// The larger and the smaller of two; b if either is not a number.
__device__ inline float larger(float a, float b) { return a > b ? a : b; }
__device__ inline float smaller(float a, float b) { return a < b ? a : b; }
// Unsigned integers in the order of floats; both zeros are one. That of a number is above 1.
__device__ inline unsigned order_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0F);
  return bits ^ ((bits >> 31) != 0 ? 0xFFFFFFFFU : 0x80000000U);
}

__device__ inline float4 sum(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// e^x within 1 ulp, as cpu::exponential.
__device__ inline float exponential(float x) {
  x = smaller(89.0F, larger(-104.0F, x));
  const float magic = 12582912.0F;
  const float shifted = fmaf(x, 1.44269504F, magic), n = shifted - magic;
  const float r = fmaf(n, 2.12194440e-4F, fmaf(n, -0.693359375F, x));
  float p = fmaf(1.9875691500e-4F, r, 1.3981999507e-3F);
  p = fmaf(p, r, 8.3334519073e-3F);
  p = fmaf(p, r, 4.1665795894e-2F);
  p = fmaf(p, r, 1.6666665459e-1F);
  p = fmaf(p, r, 5.0000001201e-1F);
  p = fmaf(p, r * r, r) + 1.0F;
  const int power = __float_as_int(shifted) - __float_as_int(magic), half = power >> 1;
  return p * __int_as_float((half + 127) << 23) * __int_as_float((power - half + 127) << 23);
}
__device__ inline float sigmoid(float x) { return 1.0F / (1.0F + exponential(-x)); }

// log sum_j exp(x[j]) from the sum of exp(x[j] - highest).
__device__ inline float log_total(float total, float highest) {
  return static_cast<float>(log(static_cast<double>(total)) + static_cast<double>(highest));
}

// Four threads hold a row's 16 lanes, four each: thread q of them lanes 4q .. 4q + 3. Folds pairwise, lane l with
// l + 8, then + 4, + 2, + 1; all four threads have the result. All 32 threads of the warp call it.
__device__ inline float fold_sum(float4 lanes) {
  lanes.x += __shfl_xor_sync(kWarp, lanes.x, 2);
  lanes.y += __shfl_xor_sync(kWarp, lanes.y, 2);
  lanes.z += __shfl_xor_sync(kWarp, lanes.z, 2);
  lanes.w += __shfl_xor_sync(kWarp, lanes.w, 2);
  lanes.x += __shfl_xor_sync(kWarp, lanes.x, 1);
  lanes.y += __shfl_xor_sync(kWarp, lanes.y, 1);
  lanes.z += __shfl_xor_sync(kWarp, lanes.z, 1);
  lanes.w += __shfl_xor_sync(kWarp, lanes.w, 1);
  return (lanes.x + lanes.z) + (lanes.y + lanes.w);
}
// Adds a quad's products to the lanes.
__device__ inline float4 add_products(float4 lanes, float4 a, float4 b) {
  return make_float4(fmaf(a.x, b.x, lanes.x), fmaf(a.y, b.y, lanes.y), fmaf(a.z, b.z, lanes.z),
                     fmaf(a.w, b.w, lanes.w));
}

}  // namespace troupe::cuda
