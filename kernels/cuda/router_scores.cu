// The gate's scores = sigmoid(x weight^T); x: (N, D) f32 or bf16, weight: (E, D) f32.
// Each logit is one chain of float32 fused multiply-adds in increasing column, as the CPU's, whatever the tile: tensor
// cores don't have that order. A block has a tile of rows and experts, staged in shared memory a slice of columns at a
// time; a thread has kRowsEach x kColsEach chains. Large tiles do 64 multiply-adds for 16 numbers read; small ones
// spread few rows over the processors. Moves x once for every kThreadCols * kColsEach experts, mostly from the L2 cache.
#include "kernels/cuda/math.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kThreadRows = 16, kThreadCols = 8, kThreads = kThreadRows * kThreadCols;
constexpr int kDepth = 32;         // columns of a slice
constexpr int kTilesWanted = 120;  // far fewer leave processors idle: then smaller tiles are better

// Rows of x or of weight. T: float or std::uint16_t.
template <typename T>
struct Operand {
  static constexpr int kPiece = 16 / sizeof(T);   // elements of 16 bytes
  static constexpr int kPitch = kDepth + kPiece;  // of a staged row: neighbouring rows begin in other banks
  const T* data;
  std::int64_t rows, cols, stride;
  bool pieces;  // 16 bytes can be copied at once

  explicit Operand(const Tensor& t)
      : data(t.row<const T>(0)), rows(t.rows), cols(t.cols), stride(t.stride), pieces(rows_aligned(t)) {}

  // Columns col .. col + kDepth of `count` rows from `first`; zeros beyond the last row and column.
  __device__ void stage(T* to, std::int64_t first, int count, std::int64_t col) const {
    constexpr int kPieces = kDepth / kPiece;
    for (int i = static_cast<int>(threadIdx.x); i < count * kPieces; i += kThreads) {
      const std::int64_t row = first + i / kPieces, begin = col + i % kPieces * kPiece;
      T* piece = to + i / kPieces * kPitch + i % kPieces * kPiece;
      const int there = row < rows && begin < cols ? static_cast<int>(min(cols - begin, std::int64_t{kPiece})) : 0;
      const T* from = there > 0 ? data + row * stride + begin : data;
      if (pieces)
        copy_async(piece, from, there * static_cast<int>(sizeof(T)));
      else
        for (int j = 0; j < kPiece; ++j) piece[j] = j < there ? from[j] : T{};
    }
  }
};

__device__ float4 four(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ float4 four(const std::uint16_t* from) { return widen(*reinterpret_cast<const uint2*>(from)); }

// sums += a slice's products. x, weight: the thread's first staged rows; its others follow kThreadRows and kThreadCols
// rows behind each other.
template <typename T, int kRowsEach, int kColsEach>
__device__ void add_slice(const T* x, const float* weight, float (&sums)[kRowsEach][kColsEach]) {
#pragma unroll 2
  for (int k = 0; k < kDepth; k += 4) {
    float4 a[kRowsEach];
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) a[i] = four(x + i * kThreadRows * Operand<T>::kPitch + k);
#pragma unroll
    for (int j = 0; j < kColsEach; ++j) {
      const float4 b = four(weight + j * kThreadCols * Operand<float>::kPitch + k);
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) sums[i][j] = fmaf(a[i].x, b.x, sums[i][j]);
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) sums[i][j] = fmaf(a[i].y, b.y, sums[i][j]);
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) sums[i][j] = fmaf(a[i].z, b.z, sums[i][j]);
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) sums[i][j] = fmaf(a[i].w, b.w, sums[i][j]);
    }
  }
}

template <typename T, int kRowsEach, int kColsEach, int kStages>
struct Tile {
  static constexpr int kRows = kThreadRows * kRowsEach, kCols = kThreadCols * kColsEach;
  T x[kStages][kRows * Operand<T>::kPitch];
  float weight[kStages][kCols * Operand<float>::kPitch];

  static std::int64_t count(const Router& op) {
    return static_cast<std::int64_t>(blocks_for(op.x.rows, kRows)) * blocks_for(op.weight.rows, kCols);
  }
};

template <typename T, int kRowsEach, int kColsEach, int kStages>
__global__ void __launch_bounds__(kThreads) scores_tile(Operand<T> x, Operand<float> weight, View scores) {
  using Staged = Tile<T, kRowsEach, kColsEach, kStages>;
  Staged& tile = *dynamic_shared<Staged>();
  const int column = static_cast<int>(threadIdx.x) % kThreadCols, row = static_cast<int>(threadIdx.x) / kThreadCols;
  const std::int64_t first_row = std::int64_t{blockIdx.y} * Staged::kRows,
                     first_col = std::int64_t{blockIdx.x} * Staged::kCols;
  const int slices = static_cast<int>((x.cols + kDepth - 1) / kDepth);
  const auto stage = [&](int slice) {
    if (slice < slices) {
      x.stage(tile.x[slice % kStages], first_row, Staged::kRows, std::int64_t{slice} * kDepth);
      weight.stage(tile.weight[slice % kStages], first_col, Staged::kCols, std::int64_t{slice} * kDepth);
    }
    copy_async_commit();
  };
  float sums[kRowsEach][kColsEach] = {};
  for (int slice = 0; slice < kStages - 1; ++slice) stage(slice);
  for (int slice = 0; slice < slices; ++slice) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // the slice is there for all, and everybody is done with the one before, whose place is next
    stage(slice + kStages - 1);
    add_slice<T>(tile.x[slice % kStages] + row * Operand<T>::kPitch,
                 tile.weight[slice % kStages] + column * Operand<float>::kPitch, sums);
  }
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i)
#pragma unroll
    for (int j = 0; j < kColsEach; ++j) {
      const std::int64_t t = first_row + row + i * kThreadRows, e = first_col + column + j * kThreadCols;
      if (t < scores.rows && e < scores.cols) *scores.at<float>(t, e) = sigmoid(sums[i][j]);
    }
}

template <typename T, int kRowsEach, int kColsEach, int kStages>
void score(const Router& op, Queue& queue) {
  using Staged = Tile<T, kRowsEach, kColsEach, kStages>;
  const dim3 grid(blocks_for(op.weight.rows, Staged::kCols), blocks_for(op.x.rows, Staged::kRows));
  launch(queue, grid, kThreads, sizeof(Staged), scores_tile<T, kRowsEach, kColsEach, kStages>, Operand<T>(op.x),
         Operand<float>(op.weight), op.scores);
}

// The fewer tiles there are, the smaller they get, and the more slices are under way.
template <typename T>
void score(const Router& op, Queue& queue) {
  if (Tile<T, 8, 8, 3>::count(op) >= kTilesWanted) return score<T, 8, 8, 3>(op, queue);
  if (Tile<T, 4, 4, 4>::count(op) >= kTilesWanted) return score<T, 4, 4, 4>(op, queue);
  score<T, 2, 2, 8>(op, queue);
}

}  // namespace

void router_scores(const Router& op, Queue& queue) {
  op.x.dtype == Dtype::f32 ? score<float>(op, queue) : score<std::uint16_t>(op, queue);
}

}  // namespace troupe::cuda
