// One row's tempered softmax: the one rule by which a token's log-probability comes about, when it is sampled and when
// it is trained; and the gradient of that, assigned. kept: a bit a token (bit v % 32 of word v / 32); null: all.
#pragma once

#include "kernels/cpu/math.h"

namespace troupe::cpu {

struct RowSoftmax {
  float highest = 0, total = 0;
  float log_total() const { return cpu::log_total(total, highest); }
};

inline bool is_kept(const std::int32_t* kept, std::int64_t token) {
  return (static_cast<std::uint32_t>(kept[token / 32]) >> (token % 32) & 1U) != 0;
}

// Weights are zero where not kept; the sum of the others.
inline float keep_row(const std::int32_t* kept, std::int64_t size, float* weights) {
  for (std::int64_t v = 0; v < size; ++v)
    if (!is_kept(kept, v)) weights[v] = 0;
  return sum(weights, size);
}

// scaled = logits / heat; weights = exp(scaled - highest), zero where not kept.
inline RowSoftmax softmax_row(const float* logits, std::int64_t size, float temperature, const std::int32_t* kept,
                              float* scaled, float* weights) {
  const float heat = temperature > 0 ? temperature : 1.0F;
  map(
      size, scaled, [=](Vec logit) { return logit / heat; }, logits);
  std::copy_n(scaled, size, weights);
  RowSoftmax row;
  row.highest = maximum(scaled, size);
  row.total = exponentials(weights, size, row.highest);
  if (kept != nullptr) row.total = keep_row(kept, size, weights);
  return row;
}

// dlogits[t,v] = (weights[v] / total - onehot[v]) * scale. buffer: of the row's size; may be weights.
inline void write_softmax_gradient(const Tensor& dlogits, std::int64_t t, std::int32_t target, const float* weights,
                                   float total, float scale, float* buffer) {
  const float share = 1.0F / total, at_target = (weights[target] * share - 1.0F) * scale;
  float* row = open_row(dlogits, t, buffer);
  map(
      dlogits.cols, row, [=](Vec weight) { return weight * share * scale; }, weights);
  row[target] = at_target;
  close_row(dlogits, t, row);
}

}  // namespace troupe::cpu
