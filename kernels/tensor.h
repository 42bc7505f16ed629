// Tensor: a two-dimensional view of device memory, row-major with a row stride. A value: it owns nothing.
// bfloat16 is stored as its upper 16 bits of a float32, rounded to nearest, ties to even.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/base/check.h"

namespace troupe {

enum class Dtype : std::uint8_t { f32, bf16, i32, f64 };

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

inline bool is_float(const Tensor& x) { return x.dtype == Dtype::f32 || x.dtype == Dtype::bf16; }
inline bool same_shape(const Tensor& a, const Tensor& b) { return a.rows == b.rows && a.cols == b.cols; }

}  // namespace troupe
