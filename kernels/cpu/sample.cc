// token[t] ~ softmax(logits[t] / temperature) within the smallest set of probability >= top_p; logits: (N, V) f32.
// The set is taken in falling order of logit, ties to the lower index; the draw is the counter's alone:
// u = uniform(key, counter[t]) of the set's mass, walked in that order, with top_p 1 in order of index.
// temperature 0: the best logit. logprob[t] = logit / temperature (1 for 0) - log sum exp of it over that set, by the
// same rule as the losses (softmax_row.h).
#include <numeric>

#include "kernels/base/random.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/softmax_row.h"

namespace troupe::cpu {

namespace {

std::int32_t best_of(const float* logits, std::int64_t size) {
  std::int64_t best = 0;
  for (std::int64_t v = 1; v < size; ++v)
    if (logits[v] > logits[best]) best = v;
  return static_cast<std::int32_t>(best);
}

// The first tokens of `order`, by falling logit, whose weights reach `mass`; all of them if none do.
// Sorted a piece at a time: the set is mostly far smaller than the vocabulary.
std::int64_t nucleus(const float* logits, const float* weights, double mass, std::int32_t* order, std::int64_t size) {
  const auto better = [&](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::iota(order, order + size, 0);
  double reached = 0;
  for (std::int64_t begin = 0, end = std::min<std::int64_t>(64, size); begin < size;
       begin = end, end = std::min(end * 2, size)) {
    std::partial_sort(order + begin, order + end, order + size, better);
    for (std::int64_t i = begin; i < end; ++i) {
      reached += weights[order[i]];
      if (reached >= mass) return i + 1;
    }
  }
  return size;
}

std::int32_t draw(const float* weights, const std::int32_t* order, std::int64_t count, double uniform) {
  double mass = 0;
  for (std::int64_t i = 0; i < count; ++i) mass += weights[order[i]];
  double left = uniform * mass;
  for (std::int64_t i = 0; i < count; ++i) {
    left -= weights[order[i]];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

void keep_only(const std::int32_t* order, std::int64_t count, std::int32_t* kept, std::int64_t words) {
  std::fill_n(kept, words, 0);
  for (std::int64_t i = 0; i < count; ++i)
    kept[order[i] / 32] =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(kept[order[i] / 32]) | 1U << (order[i] % 32));
}

}  // namespace

void run(const Sample& op, Scratch& scratch) {
  const std::int64_t size = op.logits.cols, words = kept_words_of(size);
  float *scaled = scratch.take<float>(size), *weights = scratch.take<float>(size);
  std::int32_t *order = scratch.take<std::int32_t>(size), *own = scratch.take<std::int32_t>(words);
  for (std::int64_t t = 0; t < op.logits.rows; ++t) {
    const float* logits = op.logits.row<const float>(t);
    RowSoftmax row = softmax_row(logits, size, op.temperature, nullptr, scaled, weights);
    std::int32_t token = best_of(logits, size);
    std::int32_t* kept = op.kept ? op.kept.row<std::int32_t>(t) : own;
    std::fill_n(kept, words, -1);
    if (op.temperature > 0) {
      std::int64_t count = size;
      std::iota(order, order + size, 0);
      if (op.top_p < 1) {
        count = nucleus(scaled, weights, static_cast<double>(op.top_p) * row.total, order, size);
        keep_only(order, count, kept, words);
        row.total = keep_row(kept, size, weights);
      }
      const auto* counter = op.counter.row<const std::int32_t>(t);
      token =
          draw(weights, order, count,
               random_uniform(op.key, static_cast<std::uint32_t>(counter[0]), static_cast<std::uint32_t>(counter[1])));
    }
    *op.token.row<std::int32_t>(t) = token;
    *op.logprob.row<float>(t) = scaled[token] - row.log_total();
  }
}

}  // namespace troupe::cpu
