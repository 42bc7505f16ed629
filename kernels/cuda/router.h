// What Router's steps share, each in a file of its own.
#pragma once

#include "kernels/cuda/lanes.h"
#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

constexpr float kTiny = 1e-20F;  // keeps a division by a sum of scores finite

// What the balance loss needs of each row, from whoever has the scores at hand.
struct RowsBalance {
  int* chosen = nullptr;       // (B, E): how often an expert is among the K best raw scores of its sequence's rows
  std::int64_t size = 0;       // of chosen
  float* quotients = nullptr;  // (N, E): a score by the sum of its row's, rows `pitch` apart
  std::int64_t pitch = 0;
};

// scores = sigmoid(x weight^T); rows.chosen = 0.
void router_scores(const Router& op, const RowsBalance& rows, Queue& queue);

// Sum of a row's values in the lanes of math.h, by one warp: threads l and l + 16 have lane l, and all have the result.
// lane_of(sum, col) is the lane's sum with one more column.
template <typename LaneOf>
__device__ float fold_row(int cols, LaneOf lane_of) {
  float sum = 0;
#pragma unroll 4
  for (int c = static_cast<int>(threadIdx.x % kFold); c < cols; c += kFold) sum = lane_of(sum, c);
  return fold_lanes(sum);
}

}  // namespace troupe::cuda
