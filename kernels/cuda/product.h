// What the kernels of products share: matrices as they see them, the order of their tiles, and what comes after a sum.
#pragma once

#include "kernels/cuda/view.h"
#include "kernels/op.h"

namespace troupe::cuda {

class Queue;

// A product of two bfloat16 matrices, on tensor cores.
void multiply_halves(const Product& op, Queue& queue);
// A float32 one of many elements and a short sum; false: the op is none.
bool multiply_shallow(const Product& op, Queue& queue);
// A float32 one of few elements and a long sum, spread over the processors; false: the op is none.
bool multiply_thin(const Product& op, Queue& queue);

struct HalfMatrix {
  const std::uint16_t* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;

  HalfMatrix() = default;
  HalfMatrix(const Tensor& t)  // NOLINT: a Tensor is one
      : data(static_cast<const std::uint16_t*>(t.data)), rows(t.rows), cols(t.cols), stride(t.stride) {}
};

// Tiles of the same columns together, so many rows of them before the next columns: what they read stays in the cache.
struct TilePlace {
  int row, column;
};
__device__ inline TilePlace place_of_tile(int number, int row_tiles, int column_tiles) {
  constexpr int kTogether = 8;
  const int first = number / (kTogether * column_tiles) * kTogether, together = min(kTogether, row_tiles - first);
  const int within = number - first * column_tiles;
  return {first + within % together, within / together};
}

// Sums of columns col .. col + 3 and what comes after the last k: bias, then add.
__device__ inline float4 finished(float4 sums, const View& bias, const View& add, std::int64_t row, std::int64_t col) {
  if (bias) sums = sum(sums, bias.quad(0, col));
  if (add) sums = sum(sums, add.quad(row, col));
  return sums;
}

}  // namespace troupe::cuda
