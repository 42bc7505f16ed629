// float32 arithmetic on vectors and rows, for the compute kernels only.
// The law: an element's bits depend on its value and its column, never on where a vector starts or how wide it is.
// So element loops are plain IEEE arithmetic (the compiler may not contract or reorder it), fused multiply-adds are
// written out, and every sum over columns runs in kFold lanes: lane l takes columns l, l + kFold, ... in order, and the
// lanes are folded pairwise (l with l + 8, then + 4, + 2, + 1).
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

template <typename V>
inline V square_root(V a) {
  if constexpr (sizeof(V) == 64)
    return V(_mm512_sqrt_ps(__m512(a)));
  else
    return V(_mm256_sqrt_ps(__m256(a)));
}

// bfloat16 <-> float32: nearest, ties to even; a NaN stays one.
inline float widen(std::uint16_t half) { return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16); }
inline std::uint16_t narrow(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : rounded);
}

// e^x within 1 ulp, 0 and infinity where float32 has no better answer.
// x = n ln 2 + r with |r| <= ln(2) / 2 (ln 2 in two parts); e^r by a polynomial; 2^n in two factors, each normal.
inline float exponential(float x) {
  x = x < -104.0F ? -104.0F : x;
  x = x > 89.0F ? 89.0F : x;
  const float magic = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer that stands in the low bits
  const float shifted = fused(x, 1.44269504F, magic);
  const float n = shifted - magic;
  const float r = fused(n, 2.12194440e-4F, fused(n, -0.693359375F, x));
  float p = fused(1.9875691500e-4F, r, 1.3981999507e-3F);
  p = fused(p, r, 8.3334519073e-3F);
  p = fused(p, r, 4.1665795894e-2F);
  p = fused(p, r, 1.6666665459e-1F);
  p = fused(p, r, 5.0000001201e-1F);
  p = fused(p, r * r, r) + 1.0F;
  const std::int32_t power = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(magic);
  const std::int32_t half = power >> 1;
  return p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((power - half + 127) << 23);
}
inline float sigmoid(float x) { return 1.0F / (1.0F + exponential(-x)); }

// The kFold lanes of a sum or a maximum: as vectors over whole blocks of columns, then as an array over the rest.
struct Lanes {
  static constexpr int kParts = kFold / kLanes;
  Vec part[kParts];

  explicit Lanes(float value) {
    for (Vec& p : part) p = broadcast(value);
  }
  // Folds pairwise: lane l with l + 8, then + 4, + 2, + 1; `rest(lane)` adds the last, ragged block first.
  template <typename Rest, typename Join>
  float fold(Rest rest, Join join) const {
    float lane[kFold];
    std::memcpy(lane, part, sizeof lane);
    rest(lane);
    for (int width = kFold / 2; width > 0; width /= 2)
      for (int l = 0; l < width; ++l) lane[l] = join(lane[l], lane[l + width]);
    return lane[0];
  }
};

// sum_j x[j] y[j] in lanes; the products are fused into the sum.
inline float dot(const float* x, const float* y, std::int64_t count) {
  Lanes lanes(0);
  std::int64_t j = 0;
  for (; j + kFold <= count; j += kFold)
    for (int p = 0; p < Lanes::kParts; ++p)
      lanes.part[p] = fused(load(x + j + p * kLanes), load(y + j + p * kLanes), lanes.part[p]);
  const auto rest = [&](float* lane) {
    for (; j < count; ++j, ++lane) *lane = fused(x[j], y[j], *lane);
  };
  return lanes.fold(rest, [](float a, float b) { return a + b; });
}

inline float sum(const float* x, std::int64_t count) {
  Lanes lanes(0);
  std::int64_t j = 0;
  for (; j + kFold <= count; j += kFold)
    for (int p = 0; p < Lanes::kParts; ++p) lanes.part[p] += load(x + j + p * kLanes);
  const auto rest = [&](float* lane) {
    for (; j < count; ++j, ++lane) *lane += x[j];
  };
  return lanes.fold(rest, [](float a, float b) { return a + b; });
}

// REQUIRES: count > 0. A NaN may or may not win: whoever sums the exponentials meets it there.
inline float maximum(const float* x, std::int64_t count) {
  Lanes lanes(x[0]);
  std::int64_t j = 0;
  for (; j + kFold <= count; j += kFold)
    for (int p = 0; p < Lanes::kParts; ++p) {
      const Vec v = load(x + j + p * kLanes);
      lanes.part[p] = v > lanes.part[p] ? v : lanes.part[p];
    }
  const auto rest = [&](float* lane) {
    for (; j < count; ++j, ++lane) *lane = x[j] > *lane ? x[j] : *lane;
  };
  return lanes.fold(rest, [](float a, float b) { return b > a ? b : a; });
}

// x[j] = exp(x[j] - highest), and their sum.
inline float exponentials(float* x, std::int64_t count, float highest) {
  for (std::int64_t j = 0; j < count; ++j) x[j] = exponential(x[j] - highest);
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

inline bool is_float(const Tensor& x) { return x.dtype == Dtype::f32 || x.dtype == Dtype::bf16; }
inline bool same_shape(const Tensor& a, const Tensor& b) { return a.rows == b.rows && a.cols == b.cols; }

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

}  // namespace troupe::cpu
