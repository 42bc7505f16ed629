// The gate of DeepSeek-V3 and its backward (formulas and shapes: kernels/op.h). Everything float32, outputs assigned.
// scores = sigmoid(x weight^T); choice = scores + bias with the lesser groups at -infinity; the best K by choice, ties
// to the lower index; weights from the unbiased scores, summed in slot order; then the stable plan by (expert, token).
#include <limits>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

constexpr float kTiny = 1e-20F;  // keeps a division by a sum of scores finite

// best[0..count): the indices of the greatest values in falling order, ties to the lower index.
void pick_best(const float* values, std::int64_t size, std::int64_t count, std::int32_t* best) {
  for (std::int64_t e = 0, found = 0; e < size; ++e) {
    std::int64_t slot = found;
    while (slot > 0 && values[e] > values[best[slot - 1]]) --slot;
    if (slot >= count) continue;
    found = std::min(found + 1, count);
    for (std::int64_t s = found - 1; s > slot; --s) best[s] = best[s - 1];
    best[slot] = static_cast<std::int32_t>(e);
  }
}

// Sets the choices outside the best groups to -infinity. A group is worth the sum of its two best choices.
void mask_groups(const Router& op, float* choice, float* worth, std::int32_t* kept) {
  const std::int64_t size = op.scores.cols / op.groups;
  for (int g = 0; g < op.groups; ++g) {
    std::int32_t two[2] = {0, 0};
    pick_best(choice + g * size, size, std::min<std::int64_t>(2, size), two);
    worth[g] = choice[g * size + two[0]] + (size > 1 ? choice[g * size + two[1]] : 0.0F);
  }
  pick_best(worth, op.groups, op.groups_kept, kept);
  for (int g = 0; g < op.groups; ++g)
    if (std::find(kept, kept + op.groups_kept, g) == kept + op.groups_kept)
      std::fill_n(choice + g * size, size, -std::numeric_limits<float>::infinity());
}

void choose(const Router& op, Scratch& scratch) {
  const std::int64_t experts = op.scores.cols;
  float *choice = scratch.take<float>(experts), *worth = scratch.take<float>(op.groups);
  std::int32_t* kept = scratch.take<std::int32_t>(op.groups_kept);
  const float* bias = op.bias.row<const float>(0);
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const float* scores = op.scores.row<const float>(t);
    map(
        experts, choice, [](Vec score, Vec b) { return score + b; }, scores, bias);
    if (op.groups > 1) mask_groups(op, choice, worth, kept);
    pick_best(choice, experts, op.indices.cols, op.indices.row<std::int32_t>(t));
  }
}

void weigh(const Router& op) {
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const float* scores = op.scores.row<const float>(t);
    const std::int32_t* chosen = op.indices.row<const std::int32_t>(t);
    float *weights = op.weights.row<float>(t), total = 0;
    for (std::int64_t k = 0; k < op.indices.cols; ++k) {
      CHECK(chosen[k] >= 0 && chosen[k] < op.scores.cols, "router: expert {} of {}", chosen[k], op.scores.cols);
      weights[k] = scores[chosen[k]];
      total += weights[k];
    }
    for (std::int64_t k = 0; k < op.indices.cols; ++k)
      weights[k] = (op.normalize ? weights[k] / (total + kTiny) : weights[k]) * op.scaling;
  }
}

// A counting sort: stable, so the rows of an expert stand in the order of their tokens.
void plan(const Router& op, Scratch& scratch) {
  const std::int64_t experts = op.scores.cols, slots = op.indices.cols;
  std::int32_t *counts = op.counts.row<std::int32_t>(0), *next = scratch.take<std::int32_t>(experts);
  std::fill_n(counts, experts, 0);
  for (std::int64_t t = 0; t < op.x.rows; ++t)
    for (std::int64_t k = 0; k < slots; ++k) ++counts[op.indices.row<const std::int32_t>(t)[k]];
  std::int32_t begin = 0;
  for (std::int64_t e = 0; e < experts; ++e) next[e] = begin, begin += counts[e];
  for (std::int64_t t = 0; t < op.x.rows; ++t)
    for (std::int64_t k = 0; k < slots; ++k) {
      const std::int32_t place = next[op.indices.row<const std::int32_t>(t)[k]]++;
      op.position.row<std::int32_t>(t)[k] = place;
      *op.sorted_token.row<std::int32_t>(place) = static_cast<std::int32_t>(t);
      *op.sorted_weight.row<float>(place) = op.weights.row<const float>(t)[k];
    }
}

// Fraction and balance loss of each sequence; tokens in order, then experts in order.
void balance(const Router& op, Scratch& scratch) {
  const std::int64_t experts = op.scores.cols, slots = op.indices.cols, length = op.rows_per_sequence;
  std::int32_t* best = scratch.take<std::int32_t>(slots);
  float* share = scratch.take<float>(experts);
  for (std::int64_t b = 0; b < op.sequence_fraction.rows; ++b) {
    float* fraction = op.sequence_fraction.row<float>(b);
    std::fill_n(fraction, experts, 0.0F);
    std::fill_n(share, experts, 0.0F);
    for (std::int64_t t = b * length; t < (b + 1) * length; ++t) {
      const float* scores = op.scores.row<const float>(t);
      pick_best(scores, experts, slots, best);
      for (std::int64_t k = 0; k < slots; ++k) fraction[best[k]] += 1.0F;
      const float total = sum(scores, experts);
      map(
          experts, share, [=](Vec part, Vec score) { return part + score / total; }, share, scores);
    }
    float loss = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      fraction[e] *= static_cast<float>(experts) / static_cast<float>(slots * length);
      loss += fraction[e] * (share[e] / static_cast<float>(length));
    }
    if (op.balance) op.balance.row<float>(0)[b] = loss;
  }
}

}  // namespace

void run(const Router& op, Scratch& scratch) {
  run(Product{.a = op.x, .b = op.weight, .c = op.scores, .transpose_b = true}, scratch);
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    float* scores = op.scores.row<float>(t);
    map(
        op.scores.cols, scores, [](Vec logit) { return sigmoid(logit); }, scores);
  }
  if (!op.reuse_indices) choose(op, scratch);
  weigh(op);
  plan(op, scratch);
  if (op.sequence_fraction) balance(op, scratch);
}

void run(const RouterBackward& op, Scratch& scratch) {
  const std::int64_t rows = op.scores.rows, experts = op.scores.cols, slots = op.indices.cols;
  float* dscores = scratch.take<float>(experts);
  for (std::int64_t t = 0; t < rows; ++t) {
    const float *scores = op.scores.row<const float>(t), *weights = op.weights.row<const float>(t);
    const std::int32_t *chosen = op.indices.row<const std::int32_t>(t), *place = op.position.row<const std::int32_t>(t);
    std::fill_n(dscores, experts, 0.0F);
    float mean = 0, total = kTiny;
    for (std::int64_t k = 0; k < slots; ++k) {
      mean += weights[k] * *op.dots.row<const float>(place[k]);
      total += scores[chosen[k]];
    }
    for (std::int64_t k = 0; k < slots; ++k) {
      const float along = op.scaling * *op.dots.row<const float>(place[k]);
      dscores[chosen[k]] = op.normalize ? (along - mean) / total : along;
    }
    if (op.sequence_fraction && op.balance_scale != 0) {
      const float* fraction = op.sequence_fraction.row<const float>(t / op.rows_per_sequence);
      const float all = sum(scores, experts), expected = dot(fraction, scores, experts) / all;
      const float scale = op.balance_scale;
      map(
          experts, dscores, [=](Vec d, Vec f) { return d + scale * (f - expected) / all; }, dscores, fraction);
    }
    map(
        experts, dscores, [](Vec d, Vec s) { return d * (s * (1.0F - s)); }, dscores, scores);
    write_row(op.dlogits, t, dscores);
  }
}

}  // namespace troupe::cpu
