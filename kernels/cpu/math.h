// float32 arithmetic on vectors and rows, for the compute kernels only.
// The law: an element's bits depend on its value and its column, never on where a vector starts or how wide it is.
// So element loops are plain IEEE arithmetic (the compiler may not contract or reorder it), fused multiply-adds are
// written out, ragged ends pass through padded vectors, and every sum over columns runs in kFold lanes: lane l takes
// columns l, l + kFold, ... in order, and the lanes are folded pairwise (l with l + 8, then + 4, + 2, + 1).
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/tensor.h"

namespace troupe::cpu {

constexpr int kLanes = TROUPE_LANES;
constexpr int kFold = 16;
using Vec [[gnu::vector_size(4 * kLanes)]] = float;
using Vec8 [[gnu::vector_size(32)]] = float;

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }
inline Vec broadcast(float value) { return value - Vec{}; }

// a * b + c with one rounding, in every build.
template <typename V>
inline V fused(V a, V b, V c) {
  if constexpr (sizeof(V) == 64)
    return V(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
  else
    return V(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
}
inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// The larger and the smaller of two; b if either is not a number.
template <typename V>
inline V larger(V a, V b) {
  if constexpr (sizeof(V) == 64)
    return V(_mm512_maskz_max_ps(0xFFFF, __m512(a), __m512(b)));
  else
    return V(_mm256_max_ps(__m256(a), __m256(b)));
}
template <typename V>
inline V smaller(V a, V b) {
  if constexpr (sizeof(V) == 64)
    return V(_mm512_maskz_min_ps(0xFFFF, __m512(a), __m512(b)));
  else
    return V(_mm256_min_ps(__m256(a), __m256(b)));
}

template <typename V>
inline V square_root(V a) {
  if constexpr (sizeof(V) == 64)
    return V(_mm512_maskz_sqrt_ps(0xFFFF, __m512(a)));
  else
    return V(_mm256_sqrt_ps(__m256(a)));
}

inline __m256i mask_of(std::int64_t count) {
  static constexpr std::int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - count));
}
// The first `count` <= kLanes of a vector in memory; the others are read as zero and not written.
template <typename V = Vec>
inline V load_some(const float* from, std::int64_t count) {
  if constexpr (sizeof(V) == 64)
    return V(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1), from));
  else
    return V(_mm256_maskload_ps(from, mask_of(count)));
}
template <typename V>
inline void store_some(float* to, V v, std::int64_t count) {
  if constexpr (sizeof(V) == 64)
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1U << count) - 1), __m512(v));
  else
    _mm256_maskstore_ps(to, mask_of(count), __m256(v));
}

// bfloat16 <-> float32: nearest, ties to even; a NaN stays one.
inline float widen(std::uint16_t half) { return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16); }
inline std::uint16_t narrow(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : rounded);
}

// out[j] = f(in[j]...), f on vectors. An input may be the output: a vector is read before it is written.
template <typename F, typename... In>
inline void map(std::int64_t count, float* out, F f, const In*... in) {
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) store(out + j, f(load(in + j)...));
  if (j < count) store_some(out + j, f(load_some(in + j, count - j)...), count - j);
}

// e^x within 1 ulp, 0 and infinity where float32 has no better answer.
// x = n ln 2 + r with |r| <= ln(2) / 2 (ln 2 in two parts); e^r by a polynomial; 2^n in two factors, each normal.
inline Vec exponential(Vec x) {
  using Integers [[gnu::vector_size(4 * kLanes)]] = std::int32_t;
  const Vec lowest = broadcast(-104.0F), highest = broadcast(89.0F);
  x = smaller(highest, larger(lowest, x));
  const Vec magic = broadcast(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer that stands in the low bits
  const Vec shifted = fused(x, broadcast(1.44269504F), magic);
  const Vec n = shifted - magic;
  const Vec r = fused(n, broadcast(2.12194440e-4F), fused(n, broadcast(-0.693359375F), x));
  Vec p = fused(broadcast(1.9875691500e-4F), r, broadcast(1.3981999507e-3F));
  p = fused(p, r, broadcast(8.3334519073e-3F));
  p = fused(p, r, broadcast(4.1665795894e-2F));
  p = fused(p, r, broadcast(1.6666665459e-1F));
  p = fused(p, r, broadcast(5.0000001201e-1F));
  p = fused(p, r * r, r) + 1.0F;
  const Integers power = Integers(shifted) - Integers(magic), half = power >> 1;
  return p * Vec((half + 127) << 23) * Vec((power - half + 127) << 23);
}
inline Vec sigmoid(Vec x) { return 1.0F / (1.0F + exponential(-x)); }

// The kFold lanes of a sum or a maximum, in as many vectors as they need.
struct Lanes {
  static constexpr int kParts = kFold / kLanes;
  Vec part[kParts];

  explicit Lanes(float value) {
    for (Vec& p : part) p = broadcast(value);
  }
  // Folds pairwise: lane l with l + 8, then + 4, + 2, + 1.
  template <typename Join>
  float fold(Join join) const {
    Vec8 half[2];
    std::memcpy(half, part, sizeof half);
    Vec8 v = join(half[0], half[1]);
    v = join(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));
    v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));
    v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
    return v[0];
  }
};

// sum of f(in[j]...) in lanes, where f(lane, in...) is the lane with one more term; a ragged end is padded with zeros.
template <typename F, typename... In>
inline float sum_of(std::int64_t count, F f, const In*... in) {
  Lanes lanes(0);
  std::int64_t j = 0;
  for (; j + kFold <= count; j += kFold)
    for (int p = 0; p < Lanes::kParts; ++p) lanes.part[p] = f(lanes.part[p], load(in + j + p * kLanes)...);
  if (j < count)
    for (int p = 0; p < Lanes::kParts; ++p) {
      const std::int64_t first = std::min(j + p * kLanes, count), rest = std::min<std::int64_t>(count - first, kLanes);
      lanes.part[p] = f(lanes.part[p], load_some(in + first, rest)...);
    }
  return lanes.fold([](Vec8 a, Vec8 b) { return a + b; });
}
inline float dot(const float* x, const float* y, std::int64_t count) {
  return sum_of(
      count, [](Vec lane, Vec a, Vec b) { return fused(a, b, lane); }, x, y);
}
inline float sum(const float* x, std::int64_t count) {
  return sum_of(
      count, [](Vec lane, Vec a) { return lane + a; }, x);
}

// REQUIRES: count > 0. A NaN may or may not win: whoever sums the exponentials meets it there.
inline float maximum(const float* x, std::int64_t count) {
  Lanes lanes(x[0]);
  std::int64_t j = 0;
  for (; j + kFold <= count; j += kFold)
    for (int p = 0; p < Lanes::kParts; ++p) lanes.part[p] = larger(load(x + j + p * kLanes), lanes.part[p]);
  for (; j + kLanes <= count; j += kLanes) lanes.part[0] = larger(load(x + j), lanes.part[0]);
  float best = lanes.fold([](Vec8 a, Vec8 b) { return larger(b, a); });
  for (; j < count; ++j) best = x[j] > best ? x[j] : best;
  return best;
}

// x[j] = exp(x[j] - highest), and their sum.
inline float exponentials(float* x, std::int64_t count, float highest) {
  map(
      count, x, [=](Vec v) { return exponential(v - highest); }, x);
  return sum(x, count);
}

// log sum_j exp(x[j]) from the sum that exponentials() returned: one rule for the loss and for a sample's probability.
inline float log_total(float total, float highest) {
  return static_cast<float>(std::log(static_cast<double>(total)) + static_cast<double>(highest));
}

inline void widen_row(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) to[j] = widen(from[j]);
}
inline void narrow_row(const float* from, std::uint16_t* to, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) to[j] = narrow(from[j]);
}

// A row as float32: the row itself if it is f32, else widened into `buffer` (x.cols floats).
inline const float* read_row(const Tensor& x, std::int64_t row, float* buffer) {
  if (x.dtype == Dtype::f32) return x.row<const float>(row);
  widen_row(x.row<const std::uint16_t>(row), buffer, x.cols);
  return buffer;
}
// Where to compute a row in float32, and the end of it: bf16 rows are computed in `buffer` and rounded once.
inline float* open_row(const Tensor& x, std::int64_t row, float* buffer) {
  return x.dtype == Dtype::f32 ? x.row<float>(row) : buffer;
}
inline void close_row(const Tensor& x, std::int64_t row, const float* computed) {
  if (x.dtype == Dtype::bf16) narrow_row(computed, x.row<std::uint16_t>(row), x.cols);
}
inline void write_row(const Tensor& x, std::int64_t row, const float* values) {
  if (x.dtype == Dtype::bf16)
    narrow_row(values, x.row<std::uint16_t>(row), x.cols);
  else
    std::memcpy(x.row<float>(row), values, static_cast<std::size_t>(x.cols) * sizeof(float));
}

// One row into another of the same width, converted between f32 and bf16 where the dtypes differ.
inline void convert_row(const Tensor& from, std::int64_t from_row, const Tensor& to, std::int64_t to_row) {
  if (from.dtype == to.dtype)
    std::memmove(to.address(to_row, 0), from.address(from_row, 0),
                 static_cast<std::size_t>(to.cols) * bytes_of(to.dtype));
  else if (to.dtype == Dtype::bf16)
    narrow_row(from.row<const float>(from_row), to.row<std::uint16_t>(to_row), to.cols);
  else
    widen_row(from.row<const std::uint16_t>(from_row), to.row<float>(to_row), to.cols);
}

}  // namespace troupe::cpu
