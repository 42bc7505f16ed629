// GRPO's loss and its gradient (formula: kernels/op.h), row by row; results and dlogits are assigned.
// dloss/dlogits[v] = (dloss/dlogprob) / heat * (onehot[v] - p[v]); p over the kept tokens.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/softmax_row.h"

namespace troupe::cpu {

namespace {

constexpr double kDifferenceMax = 20;  // of two log-probabilities: beyond it e^x says nothing

struct RowLoss {
  double loss = 0, slope = 0, kl = 0;  // slope: dloss/dlogprob
  bool clipped = false;
};

double bounded(double difference) { return std::clamp(difference, -kDifferenceMax, kDifferenceMax); }

RowLoss loss_of(const PolicyLoss& op, double logprob, const float* policy) {
  const double old = policy[0], reference = policy[1], advantage = policy[2], weight = policy[3];
  const double rho = std::exp(bounded(logprob - old)), d = bounded(reference - logprob);
  RowLoss row;
  row.kl = std::exp(d) - d - 1;
  double surrogate = rho * advantage, slope = surrogate;
  if (op.decoupled) {
    surrogate = slope = std::min(rho, static_cast<double>(op.importance_max)) * advantage;
  } else {
    const double low = 1 - static_cast<double>(op.clip_low), high = 1 + static_cast<double>(op.clip_high);
    const double cut = std::clamp(rho, low, high) * advantage, least = static_cast<double>(op.dual_clip) * advantage;
    row.clipped = cut < surrogate;
    if (row.clipped) surrogate = cut, slope = 0;
    if (op.dual_clip > 0 && advantage < 0 && surrogate < least) surrogate = least, slope = 0;
  }
  const double beta = op.beta;
  row.loss = weight * (beta * row.kl - surrogate);
  row.slope = weight * (beta * (1 - std::exp(d)) - slope);
  return row;
}

// -sum_v p log p of the row.
float entropy_of(const float* scaled, const float* weights, std::int64_t size, const RowSoftmax& row) {
  double sum = 0;
  for (std::int64_t v = 0; v < size; ++v)
    if (weights[v] > 0) sum += static_cast<double>(weights[v]) * static_cast<double>(scaled[v] - row.highest);
  const double total = row.total;
  return static_cast<float>(std::log(total) - sum / total);
}

}  // namespace

void run(const PolicyLoss& op, Scratch& scratch) {
  const std::int64_t size = op.logits.cols;
  const float heat = op.temperature > 0 ? op.temperature : 1.0F;
  float *scaled = scratch.take<float>(size), *weights = scratch.take<float>(size), *slopes = scratch.take<float>(size);
  for (std::int64_t t = 0; t < op.logits.rows; ++t) {
    const std::int32_t target = *op.targets.row<const std::int32_t>(t);
    CHECK(target < size, "policy loss: target {} of {}", target, size);
    float* results = op.results.row<float>(t);
    std::fill_n(results, kPolicyResults, 0.0F);
    if (target < 0) {
      std::fill_n(slopes, size, 0.0F);
      if (op.dlogits) write_row(op.dlogits, t, slopes);
      continue;
    }
    const std::int32_t* kept = op.kept ? op.kept.row<const std::int32_t>(t) : nullptr;
    const RowSoftmax row = softmax_row(op.logits.row<const float>(t), size, op.temperature, kept, scaled, weights);
    const float logprob = scaled[target] - row.log_total();
    const RowLoss loss = loss_of(op, logprob, op.policy.row<const float>(t));
    results[0] = static_cast<float>(loss.loss);
    results[1] = logprob;
    results[2] = static_cast<float>(loss.kl);
    results[3] = loss.clipped ? 1.0F : 0.0F;
    results[4] = entropy_of(scaled, weights, size, row);
    if (!op.dlogits) continue;
    const auto slope = static_cast<float>(-loss.slope / static_cast<double>(heat));
    write_softmax_gradient(op.dlogits, t, target, weights, row.total, slope, slopes);
  }
}

}  // namespace troupe::cpu
