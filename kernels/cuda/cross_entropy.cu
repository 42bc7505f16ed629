// loss[t] = log sum_v exp(logits[t,v]) - logits[t,target];  dlogits = (softmax - onehot) scale; logits: (N, V) f32.
// Rows with target < 0: zero. A block a row; formulas, and the order of the sum, which isn't the CPU's: softmax_row.h.
// Moves 4 bytes a logit once, what isn't held a second time, and 4 or 2 for its slope.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/softmax_row.h"

namespace troupe::cuda {

namespace {

__global__ void __launch_bounds__(kRowThreads, 2)
    cross_entropy_row(View logits, View targets, View loss, View dlogits, float scale, int held_max) {
  const std::int64_t t = blockIdx.x;
  const int target = *targets.at<const std::int32_t>(t, 0);
  if (target < 0) {
    if (threadIdx.x == 0) *loss.at<float>(t, 0) = 0;
    if (dlogits) write_zeros(dlogits, t);
    return;
  }
  const ScaledRow row(logits, t, 1, dynamic_shared<float>(), held_max);
  insist(target < row.cols);
  const float chosen = row.scaled(target), highest = load_row(row);
  const float total = total_of(row, highest, nullptr, [&](int c, float4, float4 weights) {
    if (c < row.held_cols) row.held_quad(c) = weights;
  });
  if (threadIdx.x == 0) *loss.at<float>(t, 0) = log_total(total, highest) - chosen;
  if (dlogits) write_softmax_gradient(row, dlogits, t, target, highest, nullptr, total, scale);
}

}  // namespace

void run(const CrossEntropy& op, Queue& queue) {
  const std::int64_t cols = op.logits.cols;
  const int held = held_of_losses(cols);
  launch(queue, static_cast<unsigned>(op.logits.rows), row_threads(cols), held_bytes(cols, held), cross_entropy_row,
         op.logits, op.targets, op.loss, op.dlogits, op.scale, held);
}

}  // namespace troupe::cuda
