// codes = e4m3(x / scale) in tiles (kernels/op.h), the codes and scales of the CPU's kernel. A warp has a tile. Sizes are
// compared as integers, so no order decides, and a NaN is the largest of all.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/view.h"
#include "kernels/tiles.h"

namespace troupe::cuda {

namespace {

constexpr int kWarps = 8;

__device__ std::uint8_t code_of(float value) {
  const unsigned bits = __float_as_uint(value), magnitude = bits & 0x7FFFFFFFU, sign = bits >> 31 << 7;
  const float size = __uint_as_float(magnitude);
  if (magnitude > 0x7F800000U) return static_cast<std::uint8_t>(sign | 0x7FU);
  if (size >= kE4m3Max) return static_cast<std::uint8_t>(sign | 0x7EU);
  if (size < 0x1p-6F)
    return static_cast<std::uint8_t>(sign | static_cast<unsigned>((size * 0x1p9F + 0x1.8p23F) - 0x1.8p23F));
  const unsigned rounded = magnitude + 0x7FFFFU + ((magnitude >> 20) & 1U);
  return static_cast<std::uint8_t>(sign | ((rounded >> 20) - ((127U - 7U) << 3)));
}

__device__ float scale_of(float largest, float floor) {
  const float scale = (largest < floor ? floor : largest) / kE4m3Max;
  return scale < 0x1p-126F ? 0x1p-126F : scale;
}

__global__ void quantize_tiles(View x, View codes, View scales, TileShape tile, float floor) {
  const std::int64_t number = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (number >= scales.rows * scales.cols) return;
  const std::int64_t down = number / scales.cols, along = number % scales.cols;
  const std::int64_t row = down * tile.rows, col = along * tile.cols, rows = min(tile.rows, x.rows - row),
                     cols = min(tile.cols, x.cols - col);
  const auto lane = static_cast<std::int64_t>(threadIdx.x % 32);
  unsigned most = 0;
  for (std::int64_t i = lane; i < rows * cols; i += 32)
    most = max(most, __float_as_uint(x.get(row + i / cols, col + i % cols)) & 0x7FFFFFFFU);
  const float scale = scale_of(__uint_as_float(__reduce_max_sync(kWarp, most)), floor);
  if (lane == 0) *scales.at<float>(down, along) = scale;
  for (std::int64_t i = lane; i < rows * cols; i += 32)
    *codes.at<std::uint8_t>(row + i / cols, col + i % cols) = code_of(x.get(row + i / cols, col + i % cols) / scale);
}

}  // namespace

void run(const Quantize& op, Queue& queue) {
  launch(queue, blocks_for(op.scales.rows * op.scales.cols, kWarps), 32 * kWarps, 0, quantize_tiles, op.x, op.codes,
         op.scales, tile_shape(op.scaling, op.down), op.scaling.floor);
}

}  // namespace troupe::cuda
