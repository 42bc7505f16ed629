// The slope of the gate's weights and of the balance loss (formulas: kernels/op.h), the bits of the CPU's kernel.
// A warp a row, a quad of scores a thread at a time; sums over slots in order, over experts in the lanes of math.h.
// Moves 4 bytes a score once (and once more from a cache for the balance), and 4 or 2 for its slope.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/math.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

struct Slopes {
  View scores, indices, weights, position, dots, dlogits, fraction;
  int rows_per_sequence;
  bool normalize;
  float scaling, balance_scale;
};

// A chosen expert, its weight and score, and the slope of its score.
struct Chosen {
  int expert;
  float weight, score, slope;
};

__device__ void weigh_chosen(const Slopes& op, std::int64_t t, Chosen* chosen) {
  const int slots = static_cast<int>(op.indices.cols), lane = static_cast<int>(threadIdx.x % 32);
  for (int k = lane; k < slots; k += 32) {
    const int expert = *op.indices.at<const std::int32_t>(t, k), place = *op.position.at<const std::int32_t>(t, k);
    insist(expert >= 0 && expert < op.scores.cols && place >= 0 && place < op.dots.rows);
    chosen[k] = {expert, *op.weights.at<const float>(t, k), *op.scores.at<const float>(t, expert),
                 *op.dots.at<const float>(place, 0)};
  }
  __syncwarp();
  float mean = 0, total = kTiny;
  for (int k = 0; k < slots; ++k) {
    mean += chosen[k].weight * chosen[k].slope;
    total += chosen[k].score;
  }
  __syncwarp();
  for (int k = lane; k < slots; k += 32) {
    const float along = op.scaling * chosen[k].slope;
    chosen[k].slope = op.normalize ? (along - mean) / total : along;
  }
  __syncwarp();
}

struct Balance {
  float all = 1, expected = 0;  // sum of the row's scores; the mean fraction by them
};

__device__ Balance balance_of(const Slopes& op, std::int64_t t) {
  const auto *scores = op.scores.at<const float>(t, 0),
             *fraction = op.fraction.at<const float>(t / op.rows_per_sequence, 0);
  const int experts = static_cast<int>(op.scores.cols);
  Balance row;
  row.all = fold_row(experts, [&](float sum, int e) { return sum + scores[e]; });
  row.expected = fold_row(experts, [&](float sum, int e) { return fmaf(fraction[e], scores[e], sum); }) / row.all;
  return row;
}

__global__ void __launch_bounds__(kThreads) router_slopes(Slopes op) {
  const int warp = static_cast<int>(threadIdx.x) / 32, slots = static_cast<int>(op.indices.cols);
  const std::int64_t t = std::int64_t{blockIdx.x} * kWarps + warp;
  if (t >= op.scores.rows) return;
  Chosen* chosen = dynamic_shared<Chosen>() + warp * slots;
  weigh_chosen(op, t, chosen);
  const bool balanced = op.fraction && op.balance_scale != 0;
  const Balance row = balanced ? balance_of(op, t) : Balance{};
  const auto slope = [&](float d, float score, float fraction) {
    if (balanced) d = d + op.balance_scale * (fraction - row.expected) / row.all;
    return d * (score * (1.0F - score));
  };
  for (int e = static_cast<int>(threadIdx.x % 32) * 4; e < op.scores.cols; e += 128) {
    const float4 s = op.scores.quad(t, e),
                 f = balanced ? op.fraction.quad(t / op.rows_per_sequence, e) : make_float4(0, 0, 0, 0);
    float4 d = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (int k = 0; k < slots; ++k) {
      const int place = chosen[k].expert - e;
      const float own = chosen[k].slope;
      if (place == 0) d.x = own;
      if (place == 1) d.y = own;
      if (place == 2) d.z = own;
      if (place == 3) d.w = own;
    }
    op.dlogits.put_quad(
        t, e, make_float4(slope(d.x, s.x, f.x), slope(d.y, s.y, f.y), slope(d.z, s.z, f.z), slope(d.w, s.w, f.w)));
  }
}

}  // namespace

void run(const RouterBackward& op, Queue& queue) {
  const Slopes slopes{.scores = op.scores,
                      .indices = op.indices,
                      .weights = op.weights,
                      .position = op.position,
                      .dots = op.dots,
                      .dlogits = op.dlogits,
                      .fraction = op.sequence_fraction,
                      .rows_per_sequence = op.rows_per_sequence,
                      .normalize = op.normalize,
                      .scaling = op.scaling,
                      .balance_scale = op.balance_scale};
  launch(queue, blocks_for(op.scores.rows, kWarps), kThreads,
         kWarps * static_cast<std::size_t>(op.indices.cols) * sizeof(Chosen), router_slopes, slopes);
}

}  // namespace troupe::cuda
