// The losses and the sampler on rows that a block of threads shares: what is held and what is read again, ragged and
// strided rows, against float64 and against the CPU's kernels, of which only the order of sums over a row is another.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/random.h"
#include "tests/cuda/beside_cpu.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

// A float32 sum of n terms of one sign, in chains of n / 16 here and of n / 2,048 there: a rounding is half a unit of a
// partial sum, they have random signs, four deviations are allowed; its logarithm is off by as much in absolute terms.
// The logarithm is below 16, so its own rounding, and that of the difference from a logit, is 8 eps, twice each.
double total_tolerance(std::int64_t cols) { return (4 * std::sqrt(static_cast<double>(cols) / 16) + 32) * kFloatEps; }

// Logits as models have them; the first row's last one leaves nothing to the others.
Owned logits_of(std::int64_t rows, std::int64_t cols, std::uint64_t seed, std::int64_t slack = 0) {
  Owned x = normal(rows, cols, seed, Dtype::f32, slack);
  for (std::int64_t t = 0; t < rows; ++t)
    for (std::int64_t v = 0; v < cols; ++v) x.tensor().row<float>(t)[v] *= 3;
  x.tensor().row<float>(0)[cols - 1] = 120;
  return x;
}

Owned targets_of(std::int64_t rows, std::int64_t cols) {
  Owned targets(rows, 1, Dtype::i32);
  for (std::int64_t t = 0; t < rows; ++t)
    targets.tensor().row<std::int32_t>(t)[0] = static_cast<std::int32_t>(t == 1 ? -1 : (cols - 1) * (t + 1) / rows);
  return targets;
}

void expect_close(const Tensor& actual, const Tensor& expected, double relative, double absolute) {
  double worst = 0;
  for (std::int64_t t = 0; t < actual.rows; ++t)
    for (std::int64_t v = 0; v < actual.cols; ++v) {
      const double e = element(expected, t, v), a = element(actual, t, v);
      worst = std::max(worst, a == e ? 0 : std::abs(a - e) / (std::abs(e) * relative + absolute));
      if (a != a) worst = INFINITY;
    }
  CHECK(worst <= 1);
}

// Columns that fit into one quad, a ragged block, one that shares a processor, one that is partly read again, and one
// that has a processor alone and is still read again.
constexpr std::int64_t kWidths[] = {1, 4, 37, 1000, 2052, 5003, 32768, 59001};

}  // namespace

TEST_CASE("cross entropy over rows of any width is the CPU's but for the order of the sum", "[loss]") {
  for (const std::int64_t cols : kWidths)
    for (const bool aligned : {true, false}) {
      const Owned wide = logits_of(3, cols + 1, 7, aligned ? (7 - cols % 4) % 4 : 2), targets = targets_of(3, cols);
      const Tensor logits = wide.tensor().columns(aligned ? 0 : 1, cols);
      const Owned loss(3, 1), expected_loss(3, 1), expected(3, cols);
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        const Owned slope(3, cols, dtype, 3);
        run_op(CrossEntropy{logits, targets, loss, slope, 0.5F});
        run_on_cpu(CrossEntropy{logits, targets, expected_loss, expected, 0.5F});
        expect_close(loss, expected_loss, 2 * kFloatEps, total_tolerance(cols));
        expect_close(slope, expected, total_tolerance(cols) + (dtype == Dtype::bf16 ? kHalfEps : 0), 1e-12);
        CHECK(slope.canaries_alive());
      }
      CHECK(loss.at(1, 0) == 0);
    }
}

TEST_CASE("a row's loss and slope are the same bits in place, alone, without a slope, in any order of threads",
          "[loss]") {
  for (const std::int64_t cols : {37, 5003, 32768, 59001, 129280}) {
    const Owned logits = logits_of(3, cols, 9), targets = targets_of(3, cols), loss(3, 1), slope(3, cols);
    run_op(CrossEntropy{logits, targets, loss, slope, 0.5F});
    const Owned alone(1, 1), its_slope(1, cols), again(3, 1);
    run_op(CrossEntropy{logits.tensor().row_range(2, 1), targets.tensor().row_range(2, 1), alone, its_slope, 0.5F});
    CHECK(same_bits(alone, loss.tensor().row_range(2, 1)));
    CHECK(same_bits(its_slope, slope.tensor().row_range(2, 1)));
    run_op(CrossEntropy{logits, targets, again, {}, 0.5F});
    CHECK(same_bits(again, loss));
    run_op(CrossEntropy{logits, targets, again, logits, 0.5F});
    CHECK(same_bits(again, loss));
    CHECK(same_bits(logits, slope));
  }
}

TEST_CASE("the policy's loss over rows of any width is the CPU's but for the order of sums", "[policy]") {
  for (const std::int64_t cols : kWidths)
    for (const bool truncated : {false, true}) {
      const Owned logits = logits_of(3, cols, 5), targets = targets_of(3, cols), policy(3, kPolicyInputs),
                  kept(3, kept_words_of(cols), Dtype::i32);
      for (std::int64_t t = 0; t < 3; ++t) {
        const float inputs[kPolicyInputs] = {-9.0F, -10.0F, t == 0 ? 1.5F : -0.7F, 0.25F};
        std::copy_n(inputs, kPolicyInputs, policy.tensor().row<float>(t));
        auto* words = kept.tensor().row<std::uint32_t>(t);
        for (std::int64_t w = 0; w < kept_words_of(cols); ++w)
          words[w] = 0xB6DB6DB7U * static_cast<std::uint32_t>(w + 1);
        words[(cols - 1) / 32] |= 1U << ((cols - 1) % 32);
      }
      PolicyLoss op;
      const Owned results(3, kPolicyResults, Dtype::f32, 1), expected(3, kPolicyResults), slope(3, cols),
          expected_slope(3, cols);
      op.logits = logits, op.targets = targets, op.policy = policy, op.temperature = 0.7F, op.beta = 0.04F;
      if (truncated) op.kept = kept;
      op.results = expected, op.dlogits = expected_slope;
      run_on_cpu(op);
      op.results = results, op.dlogits = slope;
      run_op(op);
      // The loss and its slope are exponentials of differences of log-probabilities, which are at most 20.
      const double far = 60 * total_tolerance(cols);
      expect_close(results, expected, far, far);
      expect_close(slope, expected_slope, far, 1e-9);
      CHECK(results.canaries_alive());
    }
}

namespace {

struct Drawn {
  Drawn(const Tensor& logits, float temperature, float top_p)
      : counter(logits.rows, 2, Dtype::i32),
        token(logits.rows, 1, Dtype::i32),
        logprob(logits.rows, 1),
        kept(logits.rows, kept_words_of(logits.cols), Dtype::i32) {
    for (std::int64_t t = 0; t < logits.rows; ++t)
      for (std::int32_t i = 0; i < 2; ++i)
        counter.tensor().row<std::int32_t>(t)[i] = static_cast<std::int32_t>(t) * 5 + i;
    op.logits = logits, op.counter = counter, op.token = token, op.logprob = logprob, op.kept = kept;
    op.key = 77, op.temperature = temperature, op.top_p = top_p;
  }
  Owned counter, token, logprob, kept;
  Sample op{};
};

void expect_the_cpus(const Tensor& logits, float temperature, float top_p) {
  const Drawn there(logits, temperature, top_p), here(logits, temperature, top_p);
  run_op(there.op);
  run_on_cpu(here.op);
  CHECK(same_bits(there.token, here.token));
  CHECK(same_bits(there.kept, here.kept));
  expect_close(there.logprob, here.logprob, 2 * kFloatEps, total_tolerance(logits.cols));
}

// The rule itself, in float64, up to boundaries that the order of a float32 sum could move.
void expect_the_rule(const Sample& op, std::int64_t t) {
  const std::int64_t cols = op.logits.cols;
  const auto* logits = op.logits.row<const float>(t);
  const float highest = *std::max_element(logits, logits + cols) / op.temperature;
  std::vector<std::int64_t> order(static_cast<std::size_t>(cols));
  std::iota(order.begin(), order.end(), 0);
  const auto scaled = [&](std::int64_t v) { return logits[v] / op.temperature; };
  const auto weight = [&](std::int64_t v) { return std::exp(static_cast<double>(scaled(v) - highest)); };
  if (op.top_p < 1)
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return scaled(a) > scaled(b); });
  double total = 0, mass = 0, last = 0;
  std::int64_t count = 0, drawn = -1;
  bool whole = true;  // the set is what comes first in the order
  for (std::int64_t i = 0; i < cols; ++i) {
    const std::int64_t v = order[static_cast<std::size_t>(i)];
    total += weight(v);
    if ((op.kept.row<const std::uint32_t>(t)[v / 32] >> (v % 32) & 1U) == 0) continue;
    whole = whole && count == i;
    mass += last = weight(v);
    ++count;
    if (v == *op.token.row<const std::int32_t>(t)) drawn = i;
  }
  CHECK(whole);
  REQUIRE((drawn >= 0 && drawn < count));
  const double near = total_tolerance(cols), p = op.top_p;
  CHECK(mass >= (p - near) * total);
  if (p < 1) CHECK(mass - last < (p + near) * total);
  double before = 0;
  for (std::int64_t i = 0; i < drawn; ++i) before += weight(order[static_cast<std::size_t>(i)]);
  const auto* counter = op.counter.row<const std::uint32_t>(t);
  const double at = random_uniform(op.key, counter[0], counter[1]);
  CHECK(before <= (at + near) * mass);
  CHECK(before + weight(order[static_cast<std::size_t>(drawn)]) > (at - near) * mass);
  const double logit = static_cast<double>(scaled(*op.token.row<const std::int32_t>(t)));
  CHECK(close(element(op.logprob, t, 0), logit - static_cast<double>(highest) - std::log(mass), near));
}

}  // namespace

TEST_CASE("samples of rows of any width keep the smallest set and are drawn from it by their counter", "[sample]") {
  for (const std::int64_t cols : kWidths) {
    const Owned wide = logits_of(4, cols + 1, 3);
    const Tensor logits = wide.tensor().columns(1, cols);
    for (const auto& [temperature, top_p] :
         {std::pair{1.0F, 1.0F}, {0.7F, 0.9F}, {1.3F, 0.999F}, {1.0F, 1e-30F}, {30.0F, 0.95F}, {2.0F, 0x0.FFFFFFp0F}}) {
      const Drawn drawn(logits, temperature, top_p);
      run_op(drawn.op);
      for (std::int64_t t = 0; t < 4; ++t) expect_the_rule(drawn.op, t);
    }
  }
}

// No boundary of these rows is so near that the order of a sum would move it.
TEST_CASE("samples of short rows are the CPU's, token and set, and those without temperature always", "[sample]") {
  for (const std::int64_t cols : kWidths) expect_the_cpus(logits_of(3, cols, 3), 0, 1);
  for (const std::int64_t cols : {1, 4, 37, 1000})
    for (const float temperature : {1.0F, 0.6F})
      for (const float top_p : {0.05F, 0.8F, 0.99F, 1.0F}) expect_the_cpus(logits_of(4, cols, 3), temperature, top_p);
}

TEST_CASE("equal logits are kept and drawn by index, and both zeros are equal", "[sample]") {
  const Owned logits(5, 3000);
  for (std::int64_t t = 0; t < 5; ++t)
    for (std::int64_t v = 0; v < 3000; ++v) {
      const double all[5] = {0.25, v % 2 == 0 ? 0.0 : -0.0, static_cast<double>(v % 3), v < 1500 ? -1.0 : 1.0,
                             v == 2999 ? 0.0 : -200.0};
      logits.tensor().row<float>(t)[v] = static_cast<float>(all[t]);
    }
  for (const float top_p : {0.3F, 0.5F, 0.8F, 1.0F}) expect_the_cpus(logits, 1, top_p);
}

// Twice 6.1e-8 is added to 1, and rounded up to 2^-23 each time: the true sum is below the largest top_p of that total.
TEST_CASE("where no set reaches the mass that is asked for, all tokens are kept", "[sample]") {
  const Owned logits(1, 4100);
  for (std::int64_t v = 0; v < 4100; ++v)
    logits.tensor().row<float>(0)[v] = v == 0 ? 0.0F : v % 2048 == 0 ? -16.612F : -200.0F;
  expect_the_cpus(logits, 1, 0x0.FFFFFFp0F);
  const Drawn drawn(logits, 1, 0x0.FFFFFFp0F);
  run_op(drawn.op);
  for (std::int64_t v = 0; v < 4100; ++v)
    CHECK((drawn.op.kept.row<const std::uint32_t>(0)[v / 32] >> (v % 32) & 1U) == 1);
}

TEST_CASE("what is no number spoils its own row only, and what is infinitely unlikely spoils none", "[sample]") {
  const Owned clean = logits_of(3, 100, 4), logits = logits_of(3, 100, 4), targets = integers(3, 1, {5, 5, 5}),
              loss(3, 1), clean_loss(3, 1);
  logits.tensor().row<float>(1)[7] = NAN;
  logits.tensor().row<float>(2)[7] = clean.tensor().row<float>(2)[7] = -INFINITY;
  run_op(CrossEntropy{logits, targets, loss, {}, 1});
  run_op(CrossEntropy{clean, targets, clean_loss, {}, 1});
  for (const std::int64_t t : {0, 2}) CHECK(loss.at(t, 0) == clean_loss.at(t, 0));
  CHECK(std::isnan(loss.at(1, 0)));
  for (const float top_p : {0.9F, 1.0F}) {
    const Drawn drawn(logits, 1, top_p), from_clean(clean, 1, top_p);
    run_op(drawn.op);
    run_op(from_clean.op);
    for (const std::int64_t t : {0, 2}) CHECK(drawn.token.at(t, 0) == from_clean.token.at(t, 0));
    CHECK((drawn.token.at(1, 0) >= 0 && drawn.token.at(1, 0) < 100));
    CHECK(std::isnan(drawn.logprob.at(1, 0)));
    CHECK(drawn.token.at(2, 0) != 7);
  }
}

TEST_CASE("what is sampled has the log-probability that trains, in rows of any width", "[sample]") {
  for (const std::int64_t cols : {37, 5003, 32768, 59001, 129280})
    for (const float top_p : {1.0F, 0.8F}) {
      const Owned logits = logits_of(2, cols, 21), policy(2, kPolicyInputs), results(2, kPolicyResults);
      const Drawn drawn(logits, 0.8F, top_p);
      run_op(drawn.op);
      PolicyLoss op;
      op.logits = logits, op.targets = drawn.token, op.policy = policy, op.results = results, op.kept = drawn.kept;
      op.temperature = 0.8F;
      run_op(op);
      for (std::int64_t t = 0; t < 2; ++t) CHECK(results.at(t, 1) == drawn.logprob.at(t, 0));
    }
}
