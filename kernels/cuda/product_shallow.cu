// c = (accumulate ? c : 0) + A B + add for a short sum and many rows, such as the slope of what the gate reads; float32, A
// (M, K) and B (K, N) as they stand, K at most kDepthMax. The law is product.cu's: an element is one chain of fused
// multiply-adds in increasing k, then add.
// What a tile needs of both fits shared memory: it comes at once, in one wait. What is added comes from memory near
// meanwhile. A thread has 8 x 8 elements.
#include "kernels/cuda/mma.h"
#include "kernels/cuda/near.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kRows = 128, kColumns = 128, kThreads = 256, kAcross = kColumns / 8, kDown = kThreads / kAcross;
constexpr int kDepthMax = 64, kPitch = kDepthMax + 4;  // neighbouring rows of A begin in other banks
constexpr std::int64_t kTilesEnough = 264;             // two for every multiprocessor
constexpr int kLine = 32;                              // floats that memory moves at once

struct Staged {
  float a[kRows][kPitch];
  float b[kDepthMax][kColumns];
};

struct Tiles {
  View a, b, c, add;
  bool accumulate;
  unsigned across;
};

__device__ void stage(Staged& to, const Tiles& op, std::int64_t first_row, std::int64_t first_col) {
  const int depth = static_cast<int>(op.a.cols), pieces = depth / 4;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * pieces; i += kThreads) {
    const std::int64_t row = first_row + i / pieces;
    const bool there = row < op.a.rows;
    copy_async(&to.a[i / pieces][i % pieces * 4], op.a.at<const float>(there ? row : 0, i % pieces * 4),
               there ? 16 : 0);
  }
  for (int i = static_cast<int>(threadIdx.x); i < depth * (kColumns / 4); i += kThreads) {
    const std::int64_t col = first_col + i % (kColumns / 4) * 4;
    const bool there = col < op.b.cols;
    copy_async(&to.b[i / (kColumns / 4)][i % (kColumns / 4) * 4],
               op.b.at<const float>(i / (kColumns / 4), there ? col : 0), there ? 16 : 0);
  }
  copy_async_commit();
}

// What the tile adds is on its way to the cache.
__device__ void bring(const View& x, std::int64_t first_row, std::int64_t first_col) {
  constexpr int kLines = kColumns / kLine;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kLines; i += kThreads) {
    const std::int64_t row = first_row + i / kLines, col = first_col + i % kLines * kLine;
    if (row < x.rows && col < x.cols) bring_near(x.at<const float>(row, col));
  }
}

// sums += of `depth` steps of k; depth is even. a: the thread's first row, its others follow kDown rows behind each other;
// b: its first four columns, the others are half a tile away.
__device__ void multiply(float (&sums)[8][8], const float* a, const float* b, int depth) {
#pragma unroll 2
  for (int k = 0; k < depth; k += 2) {
    float2 left[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) left[i] = *reinterpret_cast<const float2*>(a + i * kDown * kPitch + k);
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const float* from = b + (k + step) * kColumns;
      const float4 low = *reinterpret_cast<const float4*>(from),
                   high = *reinterpret_cast<const float4*>(from + kColumns / 2);
      const float right[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[i][j] = fmaf(step == 0 ? left[i].x : left[i].y, right[j], sums[i][j]);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2) shallow_tiles(const __grid_constant__ Tiles op) {
  Staged& staged = *dynamic_shared<Staged>();
  const std::int64_t first_row = std::int64_t{blockIdx.x / op.across} * kRows,
                     first_col = std::int64_t{blockIdx.x % op.across} * kColumns;
  const int row = static_cast<int>(threadIdx.x) / kAcross, col = static_cast<int>(threadIdx.x) % kAcross * 4;
  const auto row_at = [&](int i) { return first_row + row + i * kDown; };
  const auto col_at = [&](int half) { return first_col + col + half * (kColumns / 2); };
  stage(staged, op, first_row, first_col);
  if (op.add) bring(op.add, first_row, first_col);
  float sums[8][8] = {};
  for (int i = 0; i < 8 && op.accumulate; ++i)
    for (int half = 0; half < 2; ++half) {
      if (row_at(i) >= op.c.rows || col_at(half) >= op.c.cols) continue;
      const float4 quad = *reinterpret_cast<const float4*>(op.c.at<const float>(row_at(i), col_at(half)));
      float* to = &sums[i][half * 4];
      to[0] = quad.x, to[1] = quad.y, to[2] = quad.z, to[3] = quad.w;
    }
  copy_async_wait<0>();
  __syncthreads();
  multiply(sums, staged.a[row], &staged.b[0][col], static_cast<int>(op.a.cols));
#pragma unroll
  for (int first = 0; first < 8; first += 4) {
    float4 more[4][2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (op.add && row_at(first + i / 2) < op.c.rows && col_at(i % 2) < op.c.cols)
        more[i / 2][i % 2] =
            *reinterpret_cast<const float4*>(op.add.at<const float>(row_at(first + i / 2), col_at(i % 2)));
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float* from = &sums[first + i / 2][i % 2 * 4];
      float4 quad = make_float4(from[0], from[1], from[2], from[3]);
      if (op.add) quad = sum(quad, more[i / 2][i % 2]);
      if (row_at(first + i / 2) < op.c.rows && col_at(i % 2) < op.c.cols)
        *reinterpret_cast<float4*>(op.c.at<float>(row_at(first + i / 2), col_at(i % 2))) = quad;
    }
  }
}

}  // namespace

bool multiply_shallow(const Product& op, Queue& queue) {
  if (op.transpose_a || op.transpose_b || op.bias || op.a.cols > kDepthMax) return false;
  for (const Tensor& x : {op.a, op.b, op.c, op.add})
    if (x && x.dtype != Dtype::f32) return false;
  const Tiles tiles{op.a, op.b, op.c, op.add, op.accumulate, blocks_for(op.c.cols, kColumns)};
  if (!whole_quads(tiles.a, tiles.b, tiles.c, tiles.add) || !rows_aligned(op.a) || !rows_aligned(op.b)) return false;
  const std::int64_t count = std::int64_t{blocks_for(op.c.rows, kRows)} * tiles.across;
  if (count < kTilesEnough) return false;
  launch(queue, static_cast<unsigned>(count), kThreads, sizeof(Staged), shallow_tiles, tiles);
  return true;
}

}  // namespace troupe::cuda
