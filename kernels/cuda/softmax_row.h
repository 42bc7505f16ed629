// One row's tempered softmax, by one block of threads: the one rule by which a token's log-probability comes about, when
// it is sampled and when it is trained; and the gradient of that, assigned.
//   scaled = logits / heat;  highest = max scaled;  weights = exp(scaled - highest), zero where not kept;
//   total = sum of weights;  kept: a bit a token (bit v % 32 of word v / 32); null: all.
// Formulas are those of kernels/cpu/softmax_row.h. Sums have an order of their own, since sixteen lanes would be chains
// of thousands, with a block waiting: lane l of kRowLanes takes columns l, l + kRowLanes, ... in order, then lanes are
// folded pairwise: the four of a thread (l with l + 2, then + 1), the threads of a warp, the warps of a block.
// The row's first columns rest in shared memory and are read once; the others are read again in every pass.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/mma.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

constexpr int kRowThreads = 512, kRowLanes = 4 * kRowThreads, kRowWarps = kRowThreads / 32;  // fixed: sums depend on it

// Threads of a row's block: short rows have no work for more. Lanes that no thread has are zero in every sum.
inline unsigned row_threads(std::int64_t cols) { return std::min<unsigned>(kRowThreads, 32 * blocks_for(cols, 128)); }
// Columns of a row that a loss holds. Two blocks share a processor's shared memory, so that one moves memory while the
// other computes: they read a row's rest again, which is still in the L2 cache if it is short. A long row has all of
// the shared memory, for that reason.
constexpr int kHeldBySharers = 14 * kRowLanes, kHeldAlone = 28 * kRowLanes;
inline int held_of_losses(std::int64_t cols) { return cols <= 2 * kHeldBySharers ? kHeldBySharers : kHeldAlone; }
// Shared memory of a row, whose first `held` columns rest there. Bytes.
inline std::size_t held_bytes(std::int64_t cols, std::int64_t held) {
  return static_cast<std::size_t>(std::min((cols + 3) / 4 * 4, held)) * sizeof(float);
}

// Pairwise over the block's threads. All of them call, and all have the result.
template <typename T, typename Join>
__device__ T fold_block(T value, T none, Join join) {
  __shared__ T parts[kRowWarps];
  for (int distance = 16; distance > 0; distance /= 2) value = join(value, __shfl_xor_sync(kWarp, value, distance));
  __syncthreads();  // everybody has read the parts of the fold before
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  const unsigned warp = threadIdx.x % kRowWarps;  // each half of the warp folds them all
  value = warp < blockDim.x / 32 ? parts[warp] : none;
  for (int distance = kRowWarps / 2; distance > 0; distance /= 2)
    value = join(value, __shfl_xor_sync(kWarp, value, distance));
  return value;
}
__device__ inline float fold_lanes(float4 lanes) {
  return fold_block((lanes.x + lanes.z) + (lanes.y + lanes.w), 0.0F, [](float a, float b) { return a + b; });
}

struct ScaledRow {
  const float* logits = nullptr;
  float* held = nullptr;  // the first held_cols columns: all, or a multiple of kRowLanes
  int cols = 0, held_cols = 0;
  float heat = 1;
  bool quads = false;  // the row begins where a quad may

  __device__ ScaledRow(const View& view, std::int64_t t, float row_heat, float* memory, int memory_cols)
      : logits(view.at<const float>(t, 0)),
        held(memory),
        cols(static_cast<int>(view.cols)),
        held_cols(min(static_cast<int>(view.cols), memory_cols)),
        heat(row_heat),
        quads(view.quads) {}

  __device__ float4& held_quad(int col) const { return *reinterpret_cast<float4*>(held + col); }
  __device__ bool has_quad(int col) const { return quads && col + 4 <= cols; }
  // As they are in memory; minus infinity beyond the last column, which weighs nothing.
  __device__ float4 raw_quad(int col) const {
    if (has_quad(col)) return *reinterpret_cast<const float4*>(logits + col);
    return make_float4(raw(col), raw(col + 1), raw(col + 2), raw(col + 3));
  }
  __device__ float raw(int col) const { return col < cols ? logits[col] : -INFINITY; }
  __device__ float scaled(int col) const { return logits[col] / heat; }
  __device__ float at(int col) const { return col < held_cols ? held[col] : scaled(col); }  // behind a barrier
  __device__ float4 scale(float4 v) const {
    return heat == 1 ? v : make_float4(v.x / heat, v.y / heat, v.z / heat, v.w / heat);
  }
};

// f(col, quad) for the thread's own quads in increasing columns: those that are held, as they stand there, and those
// that are read again, scaled.
template <typename F>
__device__ void each_held(const ScaledRow& row, F f) {
  for (int c = 4 * static_cast<int>(threadIdx.x); c < row.held_cols; c += kRowLanes) f(c, row.held_quad(c));
}
template <typename F>
__device__ void each_read(const ScaledRow& row, F f) {
  constexpr int kAtOnce = 4;  // loads under way
  int c = row.held_cols + 4 * static_cast<int>(threadIdx.x);
  for (; row.quads && c + (kAtOnce - 1) * kRowLanes + 4 <= row.cols; c += kAtOnce * kRowLanes) {
    float4 quads[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) quads[i] = *reinterpret_cast<const float4*>(row.logits + c + i * kRowLanes);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) f(c + i * kRowLanes, row.scale(quads[i]));
  }
  for (; c < row.cols; c += kRowLanes) f(c, row.scale(row.raw_quad(c)));
}
template <typename F>
__device__ void each_quad(const ScaledRow& row, F f) {
  each_held(row, f);
  if (row.held_cols < row.cols) each_read(row, f);
}

// Reads the row, scales what is held, and returns the highest. A thread has its own quads, here and later.
__device__ inline float load_row(const ScaledRow& row) {
  for (int c = 4 * static_cast<int>(threadIdx.x); c < row.held_cols; c += kRowLanes)
    if (row.has_quad(c))
      copy_async(&row.held_quad(c), row.logits + c);
    else
      row.held_quad(c) = row.raw_quad(c);
  copy_async_commit();
  float best = -INFINITY;
  const auto see = [&](int, float4 v) { best = larger(v.x, larger(v.y, larger(v.z, larger(v.w, best)))); };
  if (row.held_cols < row.cols) each_read(row, see);
  copy_async_wait<0>();
  each_held(row, [&](int c, float4 v) {
    v = row.scale(v);
    if (row.heat != 1) row.held_quad(c) = v;
    see(c, v);
  });
  return fold_block(best, -INFINITY, [](float a, float b) { return larger(a, b); });
}

// Zero where not kept. REQUIRES: col is a multiple of four.
__device__ inline float4 keep(const std::int32_t* kept, int col, float4 weights) {
  if (kept == nullptr) return weights;
  const unsigned bits = static_cast<unsigned>(kept[col / 32]) >> (col % 32);
  return make_float4((bits & 1U) != 0 ? weights.x : 0.0F, (bits & 2U) != 0 ? weights.y : 0.0F,
                     (bits & 4U) != 0 ? weights.z : 0.0F, (bits & 8U) != 0 ? weights.w : 0.0F);
}
__device__ inline float4 weigh(float4 scaled, float highest) {
  return make_float4(exponential(scaled.x - highest), exponential(scaled.y - highest), exponential(scaled.z - highest),
                     exponential(scaled.w - highest));
}

// The row's total; see(col, scaled quad, weights) comes by on the way, and may change what is held.
template <typename See>
__device__ float total_of(const ScaledRow& row, float highest, const std::int32_t* kept, See see) {
  float4 lanes = make_float4(0, 0, 0, 0);
  each_quad(row, [&](int c, float4 scaled) {
    const float4 weights = keep(kept, c, weigh(scaled, highest));
    lanes = sum(lanes, weights);
    see(c, scaled, weights);
  });
  return fold_lanes(lanes);
}

// dlogits[t,v] = (weights[v] / total - onehot[v]) * scale; may be where the logits are.
// REQUIRES: weights are held, not scaled logits.
__device__ inline void write_softmax_gradient(const ScaledRow& row, const View& dlogits, std::int64_t t, int target,
                                              float highest, const std::int32_t* kept, float total, float scale) {
  const float share = 1.0F / total;
  const auto slope = [&](bool at_target, float weight) {
    return at_target ? (weight * share - 1.0F) * scale : weight * share * scale;
  };
  const auto write = [&](int c, float4 w) {
    const int at = target - c;
    dlogits.put_quad(t, c,
                     make_float4(slope(at == 0, w.x), slope(at == 1, w.y), slope(at == 2, w.z), slope(at == 3, w.w)));
  };
  each_held(row, write);
  if (row.held_cols < row.cols)
    each_read(row, [&](int c, float4 scaled) { write(c, keep(kept, c, weigh(scaled, highest))); });
}
__device__ inline void write_zeros(const View& dlogits, std::int64_t t) {
  for (int c = 4 * static_cast<int>(threadIdx.x); c < dlogits.cols; c += kRowLanes)
    dlogits.put_quad(t, c, make_float4(0, 0, 0, 0));
}

}  // namespace troupe::cuda
