// sequence_fraction[b,e] = E/(K T) * #{t in sequence b: e among the K best raw scores}, T = rows_per_sequence;
// balance[0,b] = sum_e sequence_fraction[b,e] * (share[b,e] / T), share[b,e] = sum_t scores[t,e] / sum_j scores[t,j].
// Tokens in order, then experts in order, as the CPU: each expert's share is one chain, so a block has 32 experts of a
// sequence, whose quotients all of its threads prepare for the one warp that adds. Moves the scores once more.
#include "kernels/cuda/math.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kExperts = 32, kWarps = 8, kThreads = 32 * kWarps, kEach = 16, kTokens = kWarps * kEach;

__global__ void clear(int* counts, std::int64_t size) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < size) counts[i] = 0;
}

// Of a token, and its row's total.
struct Scored {
  float score = 0, total = 1;
};

__global__ void __launch_bounds__(kThreads) add_shares(View scores, const float* totals, int length, float* shares) {
  __shared__ float quotients[2][kTokens][kExperts];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t e = std::int64_t{blockIdx.y} * kExperts + lane, begin = std::int64_t{blockIdx.x} * length;
  Scored next[kEach];  // under way while a warp adds
  const auto read = [&](int first) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int t = first + i * kWarps + warp;
      if (t < length && e < scores.cols) next[i] = {*scores.at<const float>(begin + t, e), totals[begin + t]};
    }
  };
  float share = 0;
  read(0);
  for (int first = 0, turn = 0; first < length; first += kTokens, turn ^= 1) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) quotients[turn][i * kWarps + warp][lane] = next[i].score / next[i].total;
    read(first + kTokens);
    __syncthreads();  // the warp that adds is done with the turn before the last
    if (warp != 0) continue;
    const int count = min(kTokens, length - first);
#pragma unroll 16
    for (int t = 0; t < count; ++t) share += quotients[turn][t][lane];
  }
  if (warp == 0 && e < scores.cols) shares[blockIdx.x * scores.cols + e] = share;
}

__global__ void __launch_bounds__(kThreads)
    finish_sequence(const int* chosen, const float* shares, float per_choice, int length, View fraction, View balance) {
  float* terms = dynamic_shared<float>();
  const std::int64_t b = blockIdx.x;
  const int experts = static_cast<int>(fraction.cols);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    const float part = static_cast<float>(chosen[b * experts + e]) * per_choice;
    *fraction.at<float>(b, e) = part;
    terms[e] = part * (shares[b * experts + e] / static_cast<float>(length));
  }
  __syncthreads();
  if (threadIdx.x != 0 || !balance) return;
  float loss = 0;
  for (int e = 0; e < experts; ++e) loss += terms[e];
  *balance.at<float>(0, b) = loss;
}

}  // namespace

RowsBalance start_balance(const Router& op, Queue& queue) {
  const std::int64_t size = op.sequence_fraction.rows * op.sequence_fraction.cols;
  const RowsBalance rows{.chosen = queue.take<int>(size), .totals = queue.take<float>(op.x.rows)};
  launch(queue, blocks_for(size, kThreads), kThreads, 0, clear, rows.chosen, size);
  return rows;
}

void finish_balance(const Router& op, const RowsBalance& rows, Queue& queue) {
  const std::int64_t experts = op.scores.cols, sequences = op.sequence_fraction.rows;
  const int length = op.rows_per_sequence;
  float* shares = queue.take<float>(sequences * experts);
  launch(queue, dim3(static_cast<unsigned>(sequences), blocks_for(experts, kExperts)), kThreads, 0, add_shares,
         op.scores, rows.totals, length, shares);
  const float per_choice = static_cast<float>(experts) / static_cast<float>(op.indices.cols * length);
  launch(queue, static_cast<unsigned>(sequences), kThreads, static_cast<std::size_t>(experts) * sizeof(float),
         finish_sequence, rows.chosen, shares, per_choice, length, op.sequence_fraction, op.balance);
}

}  // namespace troupe::cuda
