// GRPO's loss and its gradient (formula: kernels/op.h); results and dlogits are assigned. A block a row.
// dloss/dlogits[v] = (dloss/dlogprob) / heat * (onehot[v] - p[v]); p over the kept tokens.
// Formulas are the CPU's; sums over a row, the entropy's too, in float32 and in the order of softmax_row.h.
// Moves 4 bytes a logit once, what isn't held a second time, and 4 or 2 for its slope.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/softmax_row.h"

namespace troupe::cuda {

namespace {

constexpr double kDifferenceMax = 20;  // of two log-probabilities: beyond it e^x says nothing

struct Policy {
  View logits, targets, policy, results, kept, dlogits;
  float heat, clip_low, clip_high, dual_clip, beta, importance_max;
  bool decoupled;
};

struct RowLoss {
  double loss = 0, slope = 0, kl = 0;  // slope: dloss/dlogprob
  bool clipped = false;
};

__device__ double bounded(double x, double low, double high) { return x < low ? low : high < x ? high : x; }

__device__ RowLoss loss_of(const Policy& op, double logprob, const float* policy) {
  const double old = policy[0], reference = policy[1], advantage = policy[2], weight = policy[3];
  const double rho = exp(bounded(logprob - old, -kDifferenceMax, kDifferenceMax)),
               d = bounded(reference - logprob, -kDifferenceMax, kDifferenceMax);
  RowLoss row;
  row.kl = exp(d) - d - 1;
  double surrogate = rho * advantage, slope = surrogate;
  if (op.decoupled) {
    surrogate = slope = min(rho, static_cast<double>(op.importance_max)) * advantage;
  } else {
    const double low = 1 - static_cast<double>(op.clip_low), high = 1 + static_cast<double>(op.clip_high);
    const double cut = bounded(rho, low, high) * advantage, least = static_cast<double>(op.dual_clip) * advantage;
    row.clipped = cut < surrogate;
    if (row.clipped) surrogate = cut, slope = 0;
    if (op.dual_clip > 0 && advantage < 0 && surrogate < least) surrogate = least, slope = 0;
  }
  const double beta = op.beta;
  row.loss = weight * (beta * row.kl - surrogate);
  row.slope = weight * (beta * (1 - exp(d)) - slope);
  return row;
}

__device__ float4 spread(float4 lanes, float4 scaled, float4 weights, float highest) {
  const auto more = [&](float lane, float w, float s) { return w > 0 ? lane + w * (s - highest) : lane; };
  return make_float4(more(lanes.x, weights.x, scaled.x), more(lanes.y, weights.y, scaled.y),
                     more(lanes.z, weights.z, scaled.z), more(lanes.w, weights.w, scaled.w));
}

// Returns what the softmax's gradient is multiplied by. wide: sum of weights * (scaled - highest), so that
// -sum_v p log p = log total - wide / total.
__device__ float write_results(const Policy& op, std::int64_t t, float logprob, float total, float wide) {
  const RowLoss loss = loss_of(op, logprob, op.policy.at<const float>(t, 0));
  float* results = op.results.at<float>(t, 0);
  results[0] = static_cast<float>(loss.loss);
  results[1] = logprob;
  results[2] = static_cast<float>(loss.kl);
  results[3] = loss.clipped ? 1.0F : 0.0F;
  results[4] = static_cast<float>(log(static_cast<double>(total)) - static_cast<double>(wide) / total);
  return static_cast<float>(-loss.slope / static_cast<double>(op.heat));
}

__global__ void __launch_bounds__(kRowThreads, 2) policy_loss_row(Policy op, int held_max) {
  const std::int64_t t = blockIdx.x;
  const int target = *op.targets.at<const std::int32_t>(t, 0);
  if (target < 0) {
    if (threadIdx.x < kPolicyResults) *op.results.at<float>(t, threadIdx.x) = 0;
    if (op.dlogits) write_zeros(op.dlogits, t);
    return;
  }
  const std::int32_t* kept = op.kept ? op.kept.at<const std::int32_t>(t, 0) : nullptr;
  const ScaledRow row(op.logits, t, op.heat, dynamic_shared<float>(), held_max);
  insist(target < row.cols);
  const float chosen = row.scaled(target), highest = load_row(row);
  float4 lanes = make_float4(0, 0, 0, 0);
  const float total = total_of(row, highest, kept, [&](int c, float4 scaled, float4 weights) {
    lanes = spread(lanes, scaled, weights, highest);
    if (c < row.held_cols) row.held_quad(c) = weights;
  });
  const float wide = fold_lanes(lanes);
  __shared__ float slope;
  if (threadIdx.x == 0) slope = write_results(op, t, chosen - log_total(total, highest), total, wide);
  __syncthreads();
  if (op.dlogits) write_softmax_gradient(row, op.dlogits, t, target, highest, kept, total, slope);
}

}  // namespace

void run(const PolicyLoss& op, Queue& queue) {
  const std::int64_t cols = op.logits.cols;
  const int held = held_of_losses(cols);
  const Policy policy{.logits = op.logits,
                      .targets = op.targets,
                      .policy = op.policy,
                      .results = op.results,
                      .kept = op.kept,
                      .dlogits = op.dlogits,
                      .heat = op.temperature > 0 ? op.temperature : 1.0F,
                      .clip_low = op.clip_low,
                      .clip_high = op.clip_high,
                      .dual_clip = op.dual_clip,
                      .beta = op.beta,
                      .importance_max = op.importance_max,
                      .decoupled = op.decoupled};
  launch(queue, static_cast<unsigned>(op.logits.rows), row_threads(cols), held_bytes(cols, held), policy_loss_row,
         policy, held);
}

}  // namespace troupe::cuda
