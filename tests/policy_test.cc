// The ops of reinforcement: the policy's loss against its formula in float64, one rule for a token's log-probability
// when it is sampled and when it is trained, and digests that no change of bits escapes.
#include <cmath>

#include "kernels/base/random.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

void run(const Op& op) { run_op(op); }

constexpr std::int64_t kRows = 6, kSize = 37;

constexpr std::int64_t kWords = kept_words_of(kSize);

struct Case {
  Owned logits = normal(kRows, kSize, 11), targets = Owned(kRows, 1, Dtype::i32), policy{kRows, kPolicyInputs},
        results{kRows, kPolicyResults}, slopes{kRows, kSize}, kept = Owned(kRows, kWords, Dtype::i32);
  PolicyLoss op;
  // truncated: two tokens of three count, and the target.
  explicit Case(bool truncated = false) {
    op.logits = logits;
    op.targets = targets;
    op.policy = policy;
    op.results = results;
    op.dlogits = slopes;
    op.beta = 0.04F;
    for (std::int64_t t = 0; t < kRows; ++t) {
      const std::int64_t target = t == 3 ? -1 : 5 * t % kSize;
      *targets.tensor().row<std::int32_t>(t) = static_cast<std::int32_t>(target);
      float* row = policy.tensor().row<float>(t);
      row[0] = -3.0F - 0.4F * static_cast<float>(t);
      row[1] = -3.2F;
      row[2] = t % 2 == 0 ? 1.5F : -0.7F;
      row[3] = 0.25F;
      for (std::int64_t v = 0; v < kSize; ++v)
        if ((v + t) % 3 != 0 || v == target) kept.tensor().row<std::uint32_t>(t)[v / 32] |= 1U << (v % 32);
    }
    if (truncated) op.kept = kept;
  }
};

// ---- The formula of kernels/op.h ------------------------------------------------------------------------------------

bool counts(const PolicyLoss& op, std::int64_t t, std::int64_t v) {
  return !op.kept || (op.kept.row<std::uint32_t>(t)[v / 32] >> (v % 32) & 1U) != 0;
}

std::vector<double> logprobs_of(const PolicyLoss& op, std::int64_t t, const std::vector<double>& logits) {
  const double heat = static_cast<double>(op.temperature);
  double total = 0;
  for (std::int64_t v = 0; v < kSize; ++v)
    if (counts(op, t, v)) total += std::exp(logits[static_cast<std::size_t>(v)] / heat);
  std::vector<double> all;
  for (const double logit : logits) all.push_back(logit / heat - std::log(total));
  return all;
}

double logprob_of(const PolicyLoss& op, std::int64_t t, const std::vector<double>& logits) {
  return logprobs_of(op, t, logits)[static_cast<std::size_t>(*op.targets.row<std::int32_t>(t))];
}

// now: the log-probability as it is, whose ratio to the old one has no gradient where the loss is decoupled.
double loss_of(const PolicyLoss& op, std::int64_t t, const std::vector<double>& logits, double now) {
  const double logprob = logprob_of(op, t, logits);
  const auto* in = op.policy.row<float>(t);
  const double old = static_cast<double>(in[0]), reference = static_cast<double>(in[1]);
  const double a = static_cast<double>(in[2]), weight = static_cast<double>(in[3]);
  const double rho = std::exp(logprob - old), d = reference - logprob, kl = std::exp(d) - d - 1;
  const double low = 1 - static_cast<double>(op.clip_low), high = 1 + static_cast<double>(op.clip_high);
  double surrogate = std::min(rho * a, std::clamp(rho, low, high) * a);
  if (op.dual_clip > 0 && a < 0) surrogate = std::max(surrogate, static_cast<double>(op.dual_clip) * a);
  if (op.decoupled)
    surrogate = std::min(std::exp(now - old), static_cast<double>(op.importance_max)) * a * std::exp(logprob - now);
  return weight * (static_cast<double>(op.beta) * kl - surrogate);
}

double entropy_of(const PolicyLoss& op, std::int64_t t, const std::vector<double>& logits) {
  const std::vector<double> logprobs = logprobs_of(op, t, logits);
  double entropy = 0;
  for (std::int64_t v = 0; v < kSize; ++v)
    if (counts(op, t, v))
      entropy -= std::exp(logprobs[static_cast<std::size_t>(v)]) * logprobs[static_cast<std::size_t>(v)];
  return entropy;
}

std::vector<double> row_of(const Tensor& x, std::int64_t t) {
  const auto* row = x.row<float>(t);
  return {row, row + x.cols};
}

void expect_formula(const Case& c) {
  for (std::int64_t t = 0; t < kRows; ++t) {
    const bool trained = *c.op.targets.row<std::int32_t>(t) >= 0;
    const std::vector<double> logits = row_of(c.logits, t);
    const double now = trained ? logprob_of(c.op, t, logits) : 0;
    CHECK(close(c.results.at(t, 0), trained ? loss_of(c.op, t, logits, now) : 0, 1e-6));
    CHECK(close(c.results.at(t, 1), now, 1e-6));
    CHECK(close(c.results.at(t, 4), trained ? entropy_of(c.op, t, logits) : 0, 1e-6));
    for (std::int64_t v = 0; v < kSize; ++v) {
      // Central differences in float64: 1e-10 of curvature, 1e-9 of cancellation; float32 adds 1e-6.
      std::vector<double> up = logits, down = logits;
      up[static_cast<std::size_t>(v)] += 1e-5;
      down[static_cast<std::size_t>(v)] -= 1e-5;
      const double slope = trained ? (loss_of(c.op, t, up, now) - loss_of(c.op, t, down, now)) / 2e-5 : 0;
      CHECK(close(c.slopes.at(t, v), slope, 2e-6));
    }
  }
}

}  // namespace

TEST_CASE(
    "the policy's loss, slope and entropy are the formula's, with and without a bound for bad answers, of all "
    "tokens or those that sampling kept",
    "[policy]") {
  for (const float dual_clip : {0.0F, 1.2F})
    for (const float temperature : {1.0F, 0.6F})
      for (const bool truncated : {false, true}) {
        Case c(truncated);
        c.op.dual_clip = dual_clip;
        c.op.temperature = temperature;
        run(c.op);
        expect_formula(c);
      }
}

TEST_CASE("a sample of older weights weighs by how likely it is now, up to a bound, and that has no slope",
          "[policy]") {
  for (const bool truncated : {false, true}) {
    Case c(truncated);
    c.op.decoupled = true;
    c.op.importance_max = 1.5F;
    run(c.op);
    expect_formula(c);
    bool bounded = false, free = false;
    for (const std::int64_t t : {0, 1, 2, 4, 5})
      (std::exp(c.results.at(t, 1) - c.policy.at(t, 0)) > 1.5 ? bounded : free) = true;
    CHECK((bounded && free));
  }
}

TEST_CASE("a token has one log-probability: sampled, trained, alone or among others, truncated or not", "[policy]") {
  for (const float top_p : {1.0F, 0.7F}) {
    const std::int64_t words = kept_words_of(kSize);
    const Owned logits = normal(kRows, kSize, 3), counter(kRows, 2, Dtype::i32), token(kRows, 1, Dtype::i32),
                logprob(kRows, 1), kept(kRows, words, Dtype::i32), policy(kRows, kPolicyInputs),
                results(kRows, kPolicyResults), one(1, kPolicyResults);
    for (std::int64_t t = 0; t < kRows; ++t) counter.tensor().row<std::int32_t>(t)[0] = static_cast<std::int32_t>(t);
    run(Sample{.logits = logits,
               .counter = counter,
               .token = token,
               .logprob = logprob,
               .kept = kept,
               .key = 9,
               .temperature = 0.8F,
               .top_p = top_p});
    PolicyLoss op;
    op.logits = logits, op.targets = token, op.policy = policy, op.results = results, op.temperature = 0.8F;
    op.kept = kept;
    run(op);
    for (std::int64_t t = 0; t < kRows; ++t) CHECK(results.at(t, 1) == logprob.at(t, 0));
    op.logits = op.logits.row_range(4, 1), op.targets = op.targets.row_range(4, 1),
    op.policy = op.policy.row_range(4, 1);
    op.kept = op.kept.row_range(4, 1), op.results = one;
    run(op);
    CHECK(one.at(0, 1) == logprob.at(4, 0));
  }
}

TEST_CASE("a digest tells every change of a bit and every change of place, and parts add up", "[digest]") {
  const Owned x = normal(1, 1000, 5), whole(1, 4, Dtype::i32), first(1, 4, Dtype::i32), rest(1, 4, Dtype::i32);
  const auto digest = [](const Owned& out) {
    std::uint64_t sum = 0;
    std::memcpy(&sum, out.tensor().data, sizeof sum);
    return sum;
  };
  run(Digest{x, {}, whole, 100});
  run(Digest{x.tensor().columns(0, 300), {}, first, 100});
  run(Digest{x.tensor().columns(300, 700), {}, rest, 400});
  const std::uint64_t known = digest(whole);
  CHECK(known == digest(first) + digest(rest));
  auto* values = x.tensor().row<float>(0);
  for (std::uint64_t draw = 0; draw < 200; ++draw) {
    const auto i = random_below(1000, 1, draw), j = random_below(1000, 2, draw);
    if (i == j) continue;
    std::swap(values[i], values[j]);
    run(Digest{x, {}, whole, 100});
    CHECK(digest(whole) != known);
    std::swap(values[i], values[j]);
    auto* bits = x.tensor().row<std::uint32_t>(0);
    bits[i] ^= 1U << random_below(32, 3, draw);
    run(Digest{x, {}, whole, 100});
    CHECK(digest(whole) != known);
    bits[i] ^= 1U << random_below(32, 3, draw);
  }
}

TEST_CASE("an update notes the digest of what it writes, of the weights and of their copy", "[digest]") {
  const Owned p = normal(2, 500, 1), g = normal(2, 500, 2), m(2, 500), v(2, 500), copy(2, 500, Dtype::bf16),
              wrote(1, 4, Dtype::i32), read(1, 4, Dtype::i32);
  AdamW op{.parameter = p,
           .gradient = g,
           .m = m,
           .v = v,
           .copy = copy,
           .digest = wrote,
           .lr = 0.01F,
           .bias1 = 0.1F,
           .bias2 = 0.05F};
  op.first = 77;
  run(op);
  run(Digest{p, copy, read, 77});
  CHECK(same_bits(wrote, read));
}
