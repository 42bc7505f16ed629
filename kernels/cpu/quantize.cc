// values = e4m3(x / scales), one scale a tile of x: max(largest |x|, floor) / 448, at least 2^-126. Both are assigned.
// Sizes are compared as integers: so a NaN is the largest of all, and its tile's scale is one too.
#include "kernels/cpu/quantize.h"

#include "kernels/cpu/math.h"

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

}  // namespace troupe::cpu
