// values = e4m3(x / scales), one scale a tile of x: max(largest |x|, floor) / 448, at least 2^-126. Both are assigned.
// Sizes are compared as integers: so a NaN is the largest of all, and its tile's scale is one too.
#include "kernels/cpu/quantize.h"

#include <limits>

#include "kernels/cpu/math.h"
#include "kernels/cpu/product.h"

namespace troupe::cpu {

namespace {

using Words [[gnu::vector_size(4 * kLanes)]] = std::int32_t;

Words size_of(Vec x) { return Words(x) & 0x7FFFFFFF; }
Vec larger_size(Vec a, Vec b) {
  const Words x = size_of(a), y = size_of(b);
  return Vec(x > y ? x : y);
}

// The largest of `count` sizes.
float largest_of(const float* sizes, std::int64_t count) {
  std::int64_t j = 0;
  std::int32_t most = 0;
  if (count >= kLanes) {
    Vec lanes = load(sizes);
    for (j = kLanes; j + kLanes <= count; j += kLanes) lanes = larger_size(lanes, load(sizes + j));
    for (int lane = 0; lane < kLanes; ++lane) most = std::max(most, Words(lanes)[lane]);
  }
  for (; j < count; ++j) most = std::max(most, std::bit_cast<std::int32_t>(sizes[j]));
  return std::bit_cast<float>(most);
}

// A NaN stays one.
float scale_of(float largest, float floor) {
  const float scale = (largest < floor ? floor : largest) / kE4m3Max;
  return scale < 0x1p-126F ? 0x1p-126F : scale;
}

// Adding 1.5 * 2^23 steps of the grid at x's size, and taking them away, rounds x to the grid: nearest, ties to even.
// Below 2^-6 the grid's step stays 2^-9. A tile's quotients end at 448, give or take an ulp that the grid swallows.
Vec round_to_grid(Vec x) {
  const Words sign = Words(x) & INT32_MIN;
  const Vec size = Vec(size_of(x));
  const Words lowest = Words(broadcast(0x1p-6F)), power = Words(size) & 0x7F800000;
  const Vec magic = Vec((power > lowest ? power : lowest) + (20 << 23)) * 1.5F;
  return Vec(Words((size + magic) - magic) | sign);
}

}  // namespace

void quantize(const Tensor& x, TileShape tile, float floor, float* values, std::int64_t stride, float* scales,
              float* room) {
  for (std::int64_t row = 0; row < x.rows; row += tile.rows) {
    const std::int64_t end = std::min(row + tile.rows, x.rows);
    std::fill_n(room, x.cols, 0.0F);  // first each column's largest size, then each column's scale
    for (std::int64_t r = row; r < end; ++r) map(x.cols, room, larger_size, room, read_row(x, r, values + r * stride));
    for (std::int64_t col = 0; col < x.cols; col += tile.cols) {
      const std::int64_t count = std::min(tile.cols, x.cols - col);
      *scales = scale_of(largest_of(room + col, count), floor);
      std::fill_n(room + col, count, *scales++);
    }
    for (std::int64_t r = row; r < end; ++r) {
      float* out = values + r * stride;
      const float* from = x.dtype == Dtype::f32 ? x.row<const float>(r) : out;  // widened above
      map(
          x.cols, out, [](Vec v, Vec scale) { return round_to_grid(v / scale); }, from, room);
    }
  }
}

void read_codes(const Tensor& codes, float* values, std::int64_t stride) {
  using Bytes [[gnu::vector_size(kLanes)]] = std::uint8_t;
  using Halves [[gnu::vector_size(2 * kLanes)]] = std::uint16_t;  // g++ 12 widens bytes to words one by one
  const Words nan = Words(broadcast(std::numeric_limits<float>::quiet_NaN()));
  for (std::int64_t i = 0; i < codes.rows; ++i) {
    const auto* from = codes.row<const std::uint8_t>(i);
    float* to = values + i * stride;
    std::int64_t j = 0;
    for (; j + kLanes <= codes.cols; j += kLanes) {
      Bytes bytes;
      std::memcpy(&bytes, from + j, sizeof bytes);
      const Words code = __builtin_convertvector(__builtin_convertvector(bytes, Halves), Words), size = code & 0x7F;
      const Words fine = Words(__builtin_convertvector(size, Vec) * 0x1p-9F), wide = (size + ((127 - 7) << 3)) << 20;
      const Words number = size < 8 ? fine : wide;
      store(to + j, Vec((size == 0x7F ? nan : number) | (code & 0x80) << 24));
    }
    for (; j < codes.cols; ++j) to[j] = from_e4m3(from[j]);
  }
}

// Block by block: they are tiles both ways round.
void run(const Quantize& op, Scratch& scratch) {
  constexpr std::int64_t kSide = kScaledDepth;
  CHECK(op.scaling.width == kSide, "tiles {} wide are not the same both ways round", op.scaling.width);
  float *values = scratch.take<float>(kSide * kSide), *room = scratch.take<float>(kSide);
  for (std::int64_t row = 0; row < op.x.rows; row += kSide)
    for (std::int64_t col = 0; col < op.x.cols; col += kSide) {
      const Tensor block =
          op.x.row_range(row, std::min(kSide, op.x.rows - row)).columns(col, std::min(kSide, op.x.cols - col));
      float scale = 0;
      quantize(block, {kSide, kSide}, op.scaling.floor, values, kSide, &scale, room);
      op.scales.row<float>(col / kSide)[row / kSide] = op.turned_scales.row<float>(row / kSide)[col / kSide] = scale;
      for (std::int64_t i = 0; i < block.rows; ++i) {
        auto* codes = op.codes.row<std::uint8_t>(row + i) + col;
        for (std::int64_t j = 0; j < block.cols; ++j) {
          codes[j] = round_to_e4m3(values[i * kSide + j]);
          op.turned.row<std::uint8_t>(col + j)[row + i] = codes[j];
        }
      }
    }
  for (const Tensor& codes : {op.codes, op.turned})
    for (std::int64_t i = 0; i < codes.rows; ++i) {
      auto* const end = codes.row<std::uint8_t>(i) + codes.cols;
      std::fill(end, end + (round_up(codes.cols, 16) - codes.cols), std::uint8_t{0});
    }
  if (!op.digests) return;
  for (std::int64_t i = 0; i < 4; ++i)
    run(Digest{digested(op)[static_cast<std::size_t>(i)], {}, op.digests.row_range(i, 1)}, scratch);
}

}  // namespace troupe::cpu
