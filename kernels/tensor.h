// Tensor: a two-dimensional view of device memory, row-major with a row stride. A value: it owns nothing.
// bfloat16 is stored as its upper 16 bits of a float32, rounded to nearest, ties to even. E4M3 is a byte: a sign, four
// bits of exponent with bias 7, three of mantissa; its largest number is 448, and it has a NaN but no infinity.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/base/check.h"

namespace troupe {

enum class Dtype : std::uint8_t { f32, bf16, i32, f64, e4m3 };

constexpr std::size_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return 4;
    case Dtype::bf16:
      return 2;
    case Dtype::i32:
      return 4;
    case Dtype::f64:
      return 8;
    case Dtype::e4m3:
      return 1;
  }
  return 0;
}

// The bits of `value` rounded to bfloat16, nearest, ties to even (a NaN stays one), and back.
inline std::uint16_t round_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}
inline float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// The code of `value` rounded to E4M3, nearest, ties to even; beyond 448 it is 448 (a NaN stays one), and back.
constexpr float kE4m3Max = 448;
inline std::uint8_t round_to_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value), magnitude = bits & 0x7FFFFFFFU;
  const auto sign = static_cast<std::uint8_t>(bits >> 31 << 7);
  const float size = std::bit_cast<float>(magnitude);
  if (magnitude > 0x7F800000U) return sign | 0x7FU;
  if (size >= kE4m3Max) return sign | 0x7EU;
  if (size < 0x1p-6F) return sign | static_cast<std::uint8_t>((size * 0x1p9F + 0x1.8p23F) - 0x1.8p23F);
  const std::uint32_t rounded = magnitude + 0x7FFFFU + ((magnitude >> 20) & 1U);
  return sign | static_cast<std::uint8_t>((rounded >> 20) - ((127U - 7U) << 3));
}
inline float from_e4m3(std::uint8_t code) {
  const std::uint32_t sign = (code & 0x80U) << 24, magnitude = code & 0x7FU;
  if (magnitude == 0x7FU) return std::bit_cast<float>(sign | 0x7FC00000U);
  const float size = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9F
                                   : std::bit_cast<float>((magnitude << 20) + ((127U - 7U) << 23));
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(size) | sign);
}

struct Tensor {
  void* data = nullptr;  // device address of element (0, 0)
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  // elements from one row to the next, >= cols
  Dtype dtype = Dtype::f32;

  explicit operator bool() const { return rows > 0; }  // false: an absent optional operand
  std::int64_t elements() const { return rows * cols; }
  bool contiguous() const { return stride == cols || rows <= 1; }

  template <typename T>
  T* row(std::int64_t index) const {
    return static_cast<T*>(data) + index * stride;
  }
  void* address(std::int64_t row_index, std::int64_t col) const {
    return static_cast<char*>(data) + static_cast<std::size_t>(row_index * stride + col) * bytes_of(dtype);
  }
  // Views: `count` columns from `begin`, `count` rows from `begin`.
  Tensor columns(std::int64_t begin, std::int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= cols, "columns {}..+{} of {}", begin, count, cols);
    return {address(0, begin), rows, count, stride, dtype};
  }
  Tensor row_range(std::int64_t begin, std::int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= rows, "rows {}..+{} of {}", begin, count, rows);
    return {address(begin, 0), count, cols, stride, dtype};
  }
  friend bool operator==(const Tensor&, const Tensor&) = default;
};

// Codes in twos, and what fills their rows, as whoever moves or digests 16 bits at a time takes them.
inline Tensor code_pairs(const Tensor& codes) {
  CHECK(codes.dtype == Dtype::e4m3 && codes.stride % 2 == 0, "rows of {} codes", codes.stride);
  return {codes.data, codes.rows, codes.stride / 2, codes.stride / 2, Dtype::bf16};
}

inline bool is_float(const Tensor& x) { return x.dtype == Dtype::f32 || x.dtype == Dtype::bf16; }
inline bool same_shape(const Tensor& a, const Tensor& b) { return a.rows == b.rows && a.cols == b.cols; }

}  // namespace troupe
