// sequence_fraction[b,e] = E/(K T) * #{t in sequence b: e among the K best raw scores}, T = rows_per_sequence;
// balance[0,b] = sum_e sequence_fraction[b,e] * (share[b,e] / T), share[b,e] = sum_t scores[t,e] / sum_j scores[t,j].
// Tokens in order, then experts in order, as the CPU: each expert's share is one chain. A block has a sequence, a warp of
// it 32 experts at a time, whose quotients come through stages of shared memory. Moves the quotients once.
#pragma once

#include "kernels/cuda/math.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

constexpr int kShareExperts = 32, kShareWarps = 4, kShareTokens = 64, kShareStages = 4;
constexpr int kShareStage = kShareTokens * kShareExperts;  // floats

struct Balance {
  RowsBalance rows;
  View fraction, balance;
  float per_choice;
  int length;
};

inline int share_warps(int experts) {
  return std::min(static_cast<int>(blocks_for(experts, kShareExperts)), kShareWarps);
}
// Of a block's shared memory.
inline std::size_t balance_bytes(int experts) {
  return (static_cast<std::size_t>(share_warps(experts)) * kShareStages * kShareStage +
          static_cast<std::size_t>(experts)) *
         sizeof(float);
}

inline RowsBalance rows_balance(const Router& op, Queue& queue) {
  RowsBalance rows;
  rows.size = op.sequence_fraction.rows * op.sequence_fraction.cols;
  rows.chosen = queue.take<int>(rows.size);
  rows.pitch = std::int64_t{blocks_for(op.scores.cols, kShareExperts)} * kShareExperts;
  rows.quotients = queue.take<float>(op.x.rows * rows.pitch);
  return rows;
}
inline Balance balance_of(const Router& op, const RowsBalance& rows) {
  return {rows, op.sequence_fraction, op.balance,
          static_cast<float>(op.scores.cols) / static_cast<float>(op.indices.cols * op.rows_per_sequence),
          op.rows_per_sequence};
}

// The share of the expert of this lane. first: of the warp's experts.
__device__ inline float add_shares(const Balance& op, std::int64_t sequence, int first, float* stages) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* from = op.rows.quotients + sequence * op.length * op.rows.pitch + first + lane % 8 * 4;
  const int turns = (op.length + kShareTokens - 1) / kShareTokens;
  const auto stage = [&](int turn) {
    float* to = stages + turn % kShareStages * kShareStage + lane % 8 * 4;
    for (int i = lane / 8; i < kShareTokens && turn < turns; i += 4) {
      const int t = turn * kShareTokens + i;
      copy_async(to + i * kShareExperts, from + (t < op.length ? t : 0) * op.rows.pitch, t < op.length ? 16 : 0);
    }
    copy_async_commit();
  };
  float share = 0;
  for (int turn = 0; turn < kShareStages - 1; ++turn) stage(turn);
  for (int turn = 0; turn < turns; ++turn) {
    copy_async_wait<kShareStages - 2>();
    __syncwarp();  // the stage is there for all, and everybody is done with the one before, whose place is next
    stage(turn + kShareStages - 1);
    const float* own = stages + turn % kShareStages * kShareStage + lane;
    const int count = min(kShareTokens, op.length - turn * kShareTokens);
#pragma unroll 32
    for (int t = 0; t < count; ++t) share += own[t * kShareExperts];
  }
  __syncwarp();
  return share;
}

__device__ inline void balance_sequence(const Balance& op, std::int64_t sequence) {
  const int experts = static_cast<int>(op.fraction.cols), warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = min((experts + kShareExperts - 1) / kShareExperts, kShareWarps);
  float *stages = dynamic_shared<float>(), *terms = stages + warps * kShareStages * kShareStage;
  for (int first = warp * kShareExperts; warp < warps && first < experts; first += warps * kShareExperts) {
    const float share = add_shares(op, sequence, first, stages + warp * kShareStages * kShareStage);
    const int e = first + static_cast<int>(threadIdx.x) % 32;
    if (e >= experts) continue;
    const float part = static_cast<float>(op.rows.chosen[sequence * experts + e]) * op.per_choice;
    *op.fraction.at<float>(sequence, e) = part;
    terms[e] = part * (share / static_cast<float>(op.length));
  }
  __syncthreads();
  if (threadIdx.x != 0 || !op.balance) return;
  float loss = 0;
#pragma unroll 16
  for (int e = 0; e < experts; ++e) loss += terms[e];
  *op.balance.at<float>(0, sequence) = loss;
}

}  // namespace troupe::cuda
