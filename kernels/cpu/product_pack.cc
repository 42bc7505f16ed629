// Panels: the right operand of a tile, depth-major and as wide as the tile, zero beyond its last column.
#include "kernels/cpu/product.h"

namespace troupe::cpu {

namespace {

using Word8 [[gnu::vector_size(32)]] = std::uint32_t;
using Half8 [[gnu::vector_size(16)]] = std::uint16_t;

inline Vec8 load8(const float* from) {
  Vec8 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline Vec8 load8(const std::uint16_t* from) {
  Half8 half;
  std::memcpy(&half, from, sizeof half);
  return Vec8(__builtin_convertvector(half, Word8) << 16);
}
inline void store8(float* to, Vec8 v) { std::memcpy(to, &v, sizeof v); }

// Rows j and j + 4, four 32-bit words of each, side by side.
inline Vec8 load_pair(const void* low, const void* high) {
  using Vec4 [[gnu::vector_size(16)]] = float;
  Vec4 l, h;
  std::memcpy(&l, low, sizeof l);
  std::memcpy(&h, high, sizeof h);
  return __builtin_shufflevector(l, h, 0, 1, 2, 3, 4, 5, 6, 7);
}

// column(k, rows 0..7) for the four 32-bit words k of eight rows that are `stride` bytes apart:
// two 4 x 4 transpositions side by side.
template <typename Column>
[[gnu::always_inline]] inline void transpose_words(const char* from, std::int64_t stride, Column column) {
  const char* half = from + 4 * stride;
  const Vec8 r0 = load_pair(from, half), r1 = load_pair(from + stride, half + stride);
  const Vec8 r2 = load_pair(from + 2 * stride, half + 2 * stride), r3 = load_pair(from + 3 * stride, half + 3 * stride);
  const Vec8 low01 = __builtin_shufflevector(r0, r1, 0, 8, 1, 9, 4, 12, 5, 13);
  const Vec8 high01 = __builtin_shufflevector(r0, r1, 2, 10, 3, 11, 6, 14, 7, 15);
  const Vec8 low23 = __builtin_shufflevector(r2, r3, 0, 8, 1, 9, 4, 12, 5, 13);
  const Vec8 high23 = __builtin_shufflevector(r2, r3, 2, 10, 3, 11, 6, 14, 7, 15);
  column(0, __builtin_shufflevector(low01, low23, 0, 1, 8, 9, 4, 5, 12, 13));
  column(1, __builtin_shufflevector(low01, low23, 2, 3, 10, 11, 6, 7, 14, 15));
  column(2, __builtin_shufflevector(high01, high23, 0, 1, 8, 9, 4, 5, 12, 13));
  column(3, __builtin_shufflevector(high01, high23, 2, 3, 10, 11, 6, 7, 14, 15));
}

// to[k * width + j] = from[j * stride + k] for 8 rows j and the columns of one 16-byte word of each; returns how many.
// A word of bfloat16 holds two columns: the even one in its lower half, the odd one in its upper.
inline int transpose8(const float* from, std::int64_t stride, float* to, std::int64_t width) {
  transpose_words(reinterpret_cast<const char*>(from), stride * 4,
                  [=](int k, Vec8 column) { store8(to + k * width, column); });
  return 4;
}
inline int transpose8(const std::uint16_t* from, std::int64_t stride, float* to, std::int64_t width) {
  transpose_words(reinterpret_cast<const char*>(from), stride * 2, [=](int k, Vec8 column) {
    store8(to + 2 * k * width, Vec8(Word8(column) << 16));
    store8(to + (2 * k + 1) * width, Vec8(Word8(column) & 0xFFFF0000U));
  });
  return 8;
}

template <typename T>
void pack(const Tensor& b, std::int64_t width, float* panel) {
  for (std::int64_t k = 0; k < b.rows; ++k, panel += width) {
    const T* row = b.row<const T>(k);
    std::int64_t j = 0;
    for (; j + 8 <= b.cols; j += 8) store8(panel + j, load8(row + j));
    for (; j < b.cols; ++j) panel[j] = read_one(row + j);
    for (; j < width; ++j) panel[j] = 0;
  }
}

template <typename T>
void pack_transposed(const Tensor& b, std::int64_t width, float* panel) {
  constexpr std::int64_t kWord = 16 / sizeof(T);
  for (std::int64_t j = 0; j < width; j += 8) {
    const std::int64_t present = std::clamp<std::int64_t>(b.rows - j, 0, 8);
    const T* from = present > 0 ? b.row<const T>(j) : nullptr;
    std::int64_t k = 0;
    if (present == 8)
      while (k + kWord <= b.cols) k += transpose8(from + k, b.stride, panel + k * width + j, width);
    for (; k < b.cols; ++k)
      for (std::int64_t i = 0; i < 8; ++i)
        panel[k * width + j + i] = i < present ? read_one(from + i * b.stride + k) : 0.0F;
  }
}

}  // namespace

void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t cols, float* to,
               std::int64_t to_stride) {
  std::int64_t j = 0;
  for (; j + 8 <= rows; j += 8) {
    std::int64_t k = 0;
    for (; k + 4 <= cols; k += 4)
      transpose8(from + j * from_stride + k, from_stride, to + k * to_stride + j, to_stride);
    for (; k < cols; ++k)
      for (std::int64_t i = j; i < j + 8; ++i) to[k * to_stride + i] = from[i * from_stride + k];
  }
  for (; j < rows; ++j)
    for (std::int64_t k = 0; k < cols; ++k) to[k * to_stride + j] = from[j * from_stride + k];
}

void pack_panel(const Tensor& b, std::int64_t width, float* panel) {
  if (b.dtype == Dtype::bf16)
    pack<std::uint16_t>(b, width, panel);
  else
    pack<float>(b, width, panel);
}

void pack_panel_transposed(const Tensor& b, std::int64_t width, float* panel) {
  if (b.dtype == Dtype::bf16)
    pack_transposed<std::uint16_t>(b, width, panel);
  else
    pack_transposed<float>(b, width, panel);
}

}  // namespace troupe::cpu
