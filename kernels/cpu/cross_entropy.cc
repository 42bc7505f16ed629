// loss[t] = log sum_v exp(logits[t,v]) - logits[t,target];  dlogits = (softmax - onehot) scale; logits: (N, V) f32.
// The sum stands in lanes (math.h) over v, after the row's maximum is taken off. Rows with target < 0: zero.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/softmax_row.h"

namespace troupe::cpu {

void run(const CrossEntropy& op, Scratch& scratch) {
  const std::int64_t size = op.logits.cols;
  float* buffer = scratch.take<float>(size);
  for (std::int64_t t = 0; t < op.logits.rows; ++t) {
    const std::int32_t target = *op.targets.row<const std::int32_t>(t);
    CHECK(target < size, "cross entropy: target {} of {}", target, size);
    float* loss = op.loss.row<float>(t);
    if (target < 0) {
      *loss = 0;
      std::fill_n(buffer, size, 0.0F);
      if (op.dlogits) write_row(op.dlogits, t, buffer);
      continue;
    }
    const float* logits = op.logits.row<const float>(t);
    const float highest = maximum(logits, size), chosen = logits[target];
    std::copy_n(logits, size, buffer);
    const float total = exponentials(buffer, size, highest);
    *loss = log_total(total, highest) - chosen;
    if (op.dlogits) write_softmax_gradient(op.dlogits, t, target, buffer, total, op.scale, buffer);
  }
}

}  // namespace troupe::cpu
