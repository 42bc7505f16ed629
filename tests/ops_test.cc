// Every op against plain loops in double: forwards by value, backwards by central differences of the naive forward,
// rows alone against rows together by their bits.
#include <bit>
#include <cmath>
#include <numeric>

#include "kernels/base/random.h"
#include "kernels/cost.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

void run(const Op& op) { run_op(op); }

Owned copy_of(const Tensor& x) {
  Owned copy(x.rows, x.cols, x.dtype);
  run(Copy{x, copy});
  return copy;
}

}  // namespace

TEST_CASE("norm divides each row by its root mean square", "[norm]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const std::int64_t dim : {1, 7, 16, 40, 257}) {
      const Owned x = normal(5, dim, 1, type, 2), weight = normal(1, dim, 2), y(5, dim, type, 1), inverse_rms(5, 1);
      run(Norm{x, weight, y, inverse_rms, 1e-6F});
      const double rounding = half_tolerance(static_cast<double>(dim), 16, type == Dtype::bf16 ? 8 : 0);
      CHECK(distance(y, norm(Grid{x}, Grid{weight}, 1e-6)) < rounding);
      const Owned alone(1, dim, type), r(1, 1);
      run(Norm{x.tensor().row_range(3, 1), weight, alone, r, 1e-6F});
      CHECK(same_bits(alone, y.tensor().row_range(3, 1)));
    }
}

TEST_CASE("norm backward is the slope of norm, with add passed through", "[norm]") {
  const Owned x = normal(4, 19, 1), weight = normal(1, 19, 2), dy = normal(4, 19, 3), add = normal(4, 19, 4);
  const Owned y(4, 19), r(4, 1), dweight(1, 19);
  run(Norm{x, weight, y, r, 1e-6F});
  const Owned dx = copy_of(add);
  run(NormBackward{x, weight, r, dy, dx, dx, dweight, 1e-6F});
  const Grid g{dy}, more{add};
  const auto of_x = [&](const Grid& at) { return dot(norm(at, Grid{weight}, 1e-6), g) + dot(at, more); };
  const auto of_weight = [&](const Grid& at) { return dot(norm(Grid{x}, at, 1e-6), g); };
  CHECK(distance(dx, gradient(of_x, Grid{x})) < sum_tolerance(19, 16));
  CHECK(distance(dweight, gradient(of_weight, Grid{weight})) < sum_tolerance(4, 16));
}

TEST_CASE("rope turns pairs by their position's angle and inverse turns them back", "[rope]") {
  const Owned cosine(9, 3), sine(9, 3), positions = integers(4, 1, {0, 5, 8, 5});
  for (std::int64_t p = 0; p < 9; ++p)
    for (std::int64_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(p) * std::pow(100.0, -static_cast<double>(i) / 3);
      cosine.tensor().row<float>(p)[i] = static_cast<float>(std::cos(angle));
      sine.tensor().row<float>(p)[i] = static_cast<float>(std::sin(angle));
    }
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const bool interleaved : {true, false}) {
      const Owned before = normal(4, 20, 1, type), x = copy_of(before);
      Rope op{.x = x,
              .positions = positions,
              .cosine = cosine,
              .sine = sine,
              .heads = 2,
              .head_stride = 9,
              .offset = 4,
              .dim = 6,
              .interleaved = interleaved};
      run(op);
      Grid expected{before};
      for (std::int64_t t = 0; t < 4; ++t)
        for (int h = 0; h < 2; ++h)
          for (int i = 0; i < 3; ++i) {
            const std::int64_t first = 4 + h * 9 + (interleaved ? 2 * i : i), second = first + (interleaved ? 1 : 3);
            const auto p = static_cast<std::int64_t>(positions.at(t, 0));
            const double a = before.at(t, first), b = before.at(t, second);
            expected(t, first) = a * cosine.at(p, i) - b * sine.at(p, i);
            expected(t, second) = a * sine.at(p, i) + b * cosine.at(p, i);
          }
      const double once = half_tolerance(2, 8, type == Dtype::bf16 ? 2 : 0);
      CHECK(distance(x, expected) < once);
      op.inverse = true;
      run(op);
      CHECK(distance(x, Grid{before}) < 3 * once);
    }
}

TEST_CASE("swiglu and its backward follow silu, its slope and the scaled rows", "[swiglu]") {
  const Owned gate_up = normal(5, 46, 1), dh = normal(5, 23, 2), scale = normal(5, 1, 3), h(5, 23), dots(5, 1);
  run(SwiGlu{gate_up, h});
  CHECK(distance(h, swiglu(Grid{gate_up})) < sum_tolerance(4, 8));
  const Owned slope = copy_of(gate_up);
  run(SwiGluBackward{slope, dh, slope, scale, dots});
  Grid scaled{dh};
  for (std::int64_t t = 0; t < 5; ++t) {
    double expected = 0;
    for (std::int64_t i = 0; i < 23; ++i) {
      expected += dh.at(t, i) * h.at(t, i);
      scaled(t, i) *= scale.at(t, 0);
    }
    CHECK(close(dots.at(t, 0), expected, sum_tolerance(23, 16)));
  }
  const auto loss = [&](const Grid& at) { return dot(swiglu(at), scaled); };
  CHECK(distance(slope, gradient(loss, Grid{gate_up})) < sum_tolerance(8, 16));
  const Owned half = normal(5, 46, 1, Dtype::bf16), half_h(5, 23, Dtype::bf16);
  run(SwiGlu{half, half_h});
  CHECK(distance(half_h, swiglu(Grid{half})) < half_tolerance(4, 8, 4));
}

TEST_CASE("the exponential is right to one unit over its whole range", "[swiglu]") {
  // softmax of (x, 0) through cross entropy would hide it; silu(x) = x / (1 + e^-x) shows e^-x where it is large.
  const std::int64_t count = 4001;
  const Owned gate_up(1, 2 * count), h(1, count);
  for (std::int64_t i = 0; i < count; ++i) {
    gate_up.tensor().row<float>(0)[i] = static_cast<float>(static_cast<double>(i - 2000) * 0.0435);
    gate_up.tensor().row<float>(0)[count + i] = 1;
  }
  run(SwiGlu{gate_up, h});
  double worst = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = gate_up.at(0, i), expected = x / (1 + std::exp(-x));
    if (x != 0) worst = std::max(worst, std::abs(h.at(0, i) / expected - 1));
  }
  CHECK(worst < 5 * kFloatEps);  // exp 2, sum, division and product 1/2 unit each
}

TEST_CASE("cross entropy is the log of the target's share, and its slope softmax minus one-hot", "[loss]") {
  const std::vector<std::int32_t> targets{3, -1, 0, 40};
  const Owned logits = normal(4, 41, 1), ids = integers(4, 1, targets), loss(4, 1), slope(4, 41),
              half(4, 41, Dtype::bf16);
  run(CrossEntropy{logits, ids, loss, slope, 0.5F});
  const auto naive = [&](const Grid& at) { return cross_entropy(at, targets); };
  double total = 0;
  for (std::int64_t t = 0; t < 4; ++t) total += loss.at(t, 0);
  CHECK(close(total, naive(Grid{logits}), sum_tolerance(41, 8)));
  CHECK(loss.at(1, 0) == 0);
  Grid expected = gradient(naive, Grid{logits});
  for (double& x : expected.values) x *= 0.5;
  CHECK(distance(slope, expected) < sum_tolerance(41, 1));
  run(CrossEntropy{logits, ids, loss, half, 0.5F});
  CHECK(distance(half, expected) < half_tolerance(41, 1, 0.5));
  const Owned alone(1, 1);
  run(CrossEntropy{logits.tensor().row_range(2, 1), ids.tensor().row_range(2, 1), alone, {}, 1});
  CHECK(same_bits(alone, loss.tensor().row_range(2, 1)));
  run(CrossEntropy{logits, ids, loss, logits, 0.5F});
  CHECK(same_bits(logits, slope));
}

TEST_CASE("moved rows arrive where the index says, converted", "[permute]") {
  const Owned source = normal(6, 9, 1), index = integers(4, 1, {5, 0, 0, 3}), out(4, 9, Dtype::bf16), back(6, 9);
  run(Gather{source, index, out});
  for (std::int64_t j = 0; j < 4; ++j)
    for (std::int64_t d = 0; d < 9; ++d)
      CHECK(close(out.at(j, d), source.at(static_cast<std::int64_t>(index.at(j, 0)), d), kHalfEps * 2));
  run(Fill{back, 7});
  run(Scatter{out, index, back});
  CHECK(same_bits(back.tensor().row_range(4, 1), back.tensor().row_range(1, 1)));
  for (std::int64_t d = 0; d < 9; ++d)
    CHECK((back.at(3, d) == out.at(3, d) && back.at(0, d) == out.at(2, d) && back.at(1, d) == 7));
}

TEST_CASE("combine adds the residuals and then the expert rows in slot order", "[permute]") {
  const Owned first = normal(3, 20, 1), second = normal(5, 20, 2, Dtype::bf16), weight = normal(4, 2, 3);
  const Owned position = integers(4, 2, {0, 7, 2, 3, 6, 1, 4, 5}), add0 = normal(4, 20, 4), add1 = normal(4, 20, 5),
              out(4, 20);
  for (const bool weighted : {true, false}) {
    run(Combine{{first, second}, position, weighted ? weight.tensor() : Tensor{}, add0, add1, out});
    Grid expected(4, 20);
    for (std::int64_t t = 0; t < 4; ++t)
      for (std::int64_t d = 0; d < 20; ++d) {
        expected(t, d) = add0.at(t, d) + add1.at(t, d);
        for (std::int64_t k = 0; k < 2; ++k) {
          const auto p = static_cast<std::int64_t>(position.at(t, k));
          expected(t, d) += (weighted ? weight.at(t, k) : 1) * (p < 3 ? first.at(p, d) : second.at(p - 3, d));
        }
      }
    CHECK(distance(out, expected) < sum_tolerance(4, 16));
  }
}

TEST_CASE("an embedding's gradient adds the rows of each token in order and skips padding", "[embedding]") {
  const Owned table = normal(7, 5, 1), ids = integers(5, 1, {6, 2, -1, 2, 0}), out(5, 5), dx = normal(5, 5, 2),
              dtable(7, 5);
  run(Embedding{ids, table, out});
  CHECK(same_bits(out.tensor().row_range(1, 1), table.tensor().row_range(2, 1)));
  run(Fill{dtable, 0});
  run(EmbeddingGradient{ids, dx, dtable});
  for (std::int64_t d = 0; d < 5; ++d) {
    CHECK(dtable.at(2, d) == static_cast<double>(static_cast<float>(dx.at(1, d)) + static_cast<float>(dx.at(3, d))));
    CHECK((dtable.at(6, d) == dx.at(0, d) && dtable.at(0, d) == dx.at(4, d) && dtable.at(1, d) == 0 &&
           out.at(2, d) == 0));
  }
}

TEST_CASE("adamw follows its formula and leaves a rounded copy", "[optimizer]") {
  const Owned p = normal(3, 21, 1), g = normal(3, 21, 2), m = normal(3, 21, 3), v = normal(3, 21, 4),
              copy(3, 21, Dtype::bf16);
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 21; ++j) v.tensor().row<float>(i)[j] = std::abs(v.tensor().row<float>(i)[j]);
  const Grid p0{p}, m0{m}, v0{v};
  const AdamW op{.parameter = p,
                 .gradient = g,
                 .m = m,
                 .v = v,
                 .copy = copy,
                 .lr = 0.1F,
                 .beta1 = 0.9F,
                 .beta2 = 0.95F,
                 .eps = 1e-8F,
                 .weight_decay = 0.1F,
                 .bias1 = 0.1F,
                 .bias2 = 0.05F,
                 .clip_scale = 0.5F};
  run(op);
  Grid p1 = p0, m1 = m0, v1 = v0;
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 21; ++j) {
      const double slope = g.at(i, j) * 0.5;
      m1(i, j) = 0.9 * m0(i, j) + 0.1 * slope;
      v1(i, j) = 0.95 * v0(i, j) + 0.05 * slope * slope;
      p1(i, j) = p0(i, j) * 0.99 - 0.1 * (m1(i, j) / 0.1) / (std::sqrt(v1(i, j) / 0.05) + 1e-8);
    }
  CHECK(distance(m, m1) < sum_tolerance(2, 4));
  CHECK(distance(v, v1) < sum_tolerance(2, 4));
  CHECK(distance(p, p1) < sum_tolerance(8, 16));
  CHECK(distance(copy, Grid{p}) <= kHalfEps * 8);
}

TEST_CASE("a sum of squares is one sum per block of 4096, then over blocks, in float64", "[optimizer]") {
  for (const auto& [rows, cols, slack] :
       {std::array<std::int64_t, 3>{1, 5, 0}, {70, 1000, 0}, {70, 1000, 3}, {9, 4096, 0}}) {
    const Owned x = normal(rows, cols, 1, Dtype::f32, slack), out(1, 1, Dtype::f64), bits = integers(1, 1, {0});
    run(SumSquares{x, out, bits});
    double total = 0, block = 0;
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      block += x.at(i / cols, i % cols) * x.at(i / cols, i % cols);
      if (i % 4096 == 4095 || i + 1 == rows * cols) total += block, block = 0;
    }
    CHECK(out.at(0, 0) == total);
    std::uint32_t patterns = 0;
    for (std::int64_t i = 0; i < rows * cols; ++i)
      patterns += std::bit_cast<std::uint32_t>(static_cast<float>(x.at(i / cols, i % cols)));
    CHECK(static_cast<std::uint32_t>(static_cast<std::int32_t>(bits.at(0, 0))) == patterns);
  }
}

TEST_CASE("sums of rows, sums, fills and conversions are exact where float32 is", "[elementwise]") {
  const Owned x = normal(4, 9, 1, Dtype::bf16), sums(1, 9), twice(4, 9), scaled(4, 9), scale = integers(1, 1, {0});
  run(SumRows{x, sums, false});
  run(SumRows{x, sums, true});
  run(Add{x, x, twice});
  const Owned factor(4, 1);
  run(Fill{factor, 0.5F});
  run(ScaleRows{twice, factor, scaled});
  const Owned back(4, 9, Dtype::bf16);
  run(Copy{scaled, back});
  CHECK(same_bits(back, x));
  for (std::int64_t d = 0; d < 9; ++d) {
    float expected = 0;
    for (std::int64_t t = 0; t < 8; ++t) expected += static_cast<float>(x.at(t % 4, d));
    CHECK(sums.at(0, d) == static_cast<double>(expected));
  }
}

TEST_CASE("initial values are a pure function of key and index", "[elementwise]") {
  const Owned all(20, 30), none(2, 2, Dtype::bf16);
  run(Initialize{all, 77, 1, 0.02F});
  run(Initialize{none, 77, 0.25F, 0});
  double mean = 0, square = 0;
  for (std::int64_t i = 0; i < 600; ++i) {
    const double x = all.at(i / 30, i % 30);
    // A GPU's normal may differ in its last bit: its logarithm and its cosine aren't the C library's.
    const float drawn = random_normal(77, static_cast<std::uint64_t>(i)), below = std::nextafter(drawn, -9.0F),
                above = std::nextafter(drawn, 9.0F);
    CHECK((x == static_cast<double>(1.0F + 0.02F * drawn) || x == static_cast<double>(1.0F + 0.02F * below) ||
           x == static_cast<double>(1.0F + 0.02F * above)));
    mean += x / 600, square += (x - 1) * (x - 1) / 600;
  }
  // 600 draws: the mean of 0.02 normal is off by 0.02 / sqrt(600) = 0.0008, its square by 6 %; 4 of each are allowed.
  CHECK(close(mean, 1, 0.0033));
  CHECK(close(std::sqrt(square), 0.02, 0.0024));
  CHECK(none.at(1, 1) == 0.25);
}

TEST_CASE("without temperature the best logit is taken, the lower index first", "[sample]") {
  const Owned logits = normal(2, 50, 1), counter = integers(2, 2, {0, 0, 0, 1}), token(2, 1, Dtype::i32), logprob(2, 1),
              loss(2, 1);
  logits.tensor().row<float>(0)[31] = logits.tensor().row<float>(0)[7] = 9;
  run(Sample{.logits = logits, .counter = counter, .token = token, .logprob = logprob, .key = 5});
  CHECK(token.at(0, 0) == 7);
  // The log-probability is the loss's own, to the bit.
  run(CrossEntropy{logits, token, loss, {}, 1});
  for (std::int64_t t = 0; t < 2; ++t) CHECK(logprob.at(t, 0) == -loss.at(t, 0));
}

TEST_CASE("samples follow the tempered softmax, inside the nucleus, by their counter alone", "[sample]") {
  constexpr int kDraws = 4000;
  const Owned logits(kDraws, 4), counter(kDraws, 2, Dtype::i32), token(kDraws, 1, Dtype::i32), logprob(kDraws, 1);
  const double shares[4] = {0.1, 0.4, 0.2, 0.3};
  for (std::int64_t t = 0; t < kDraws; ++t)
    for (std::int64_t v = 0; v < 4; ++v) {
      logits.tensor().row<float>(t)[v] = static_cast<float>(2 * std::log(shares[v]));
      counter.tensor().row<std::int32_t>(t)[v / 2] = static_cast<std::int32_t>(v / 2 == 0 ? t : 3);
    }
  Sample op{
      .logits = logits, .counter = counter, .token = token, .logprob = logprob, .key = 5, .temperature = 2, .top_p = 1};
  for (const float top_p : {1.0F, 0.65F}) {
    op.top_p = top_p;
    run(op);
    double counts[4] = {};
    for (std::int64_t t = 0; t < kDraws; ++t) counts[static_cast<int>(token.at(t, 0))] += 1.0 / kDraws;
    // 4,000 draws of probability p: deviation at most 0.008; 4 of them are allowed.
    const double expected[2][4] = {{0.1, 0.4, 0.2, 0.3}, {0, 4.0 / 7, 0, 3.0 / 7}};
    for (int v = 0; v < 4; ++v) CHECK(close(counts[v], expected[top_p < 1][v], top_p < 1 && v % 2 == 0 ? 0 : 0.032));
    CHECK(close(logprob.at(0, 0), std::log(expected[top_p < 1][static_cast<int>(token.at(0, 0))]), 1e-6));
  }
  const Owned one(1, 1, Dtype::i32), its(1, 1);
  op.logits = op.logits.row_range(1234, 1), op.counter = op.counter.row_range(1234, 1), op.token = one,
  op.logprob = its;
  run(op);
  CHECK(same_bits(one, token.tensor().row_range(1234, 1)));
}

TEST_CASE("the cost of a segment is the sum of its ops' products and bytes", "[cost]") {
  const Owned a(3, 5), b(7, 5), c(3, 7, Dtype::bf16), r(3, 1);
  const Segment segment{
      .key = {}, .ops = {Product{.a = a, .b = b, .c = c, .transpose_b = true}, Fill{r, 0}}, .done = {}};
  CHECK(cost(segment) == Cost{2.0 * 3 * 7 * 5, 3 * 5 * 4 + 7 * 5 * 4 + 3 * 7 * 2 + 3 * 4});
}

TEST_CASE("the set that sampling kept is moved like any other operand", "[cost]") {
  const Owned logits(3, 70), kept(3, kept_words_of(70), Dtype::i32);
  Sample sample{.logits = logits, .counter = {}, .token = {}, .logprob = {}};
  PolicyLoss loss;
  loss.logits = logits;
  const double sampled = cost(sample).bytes, trained = cost(loss).bytes;
  sample.kept = loss.kept = kept;
  CHECK(cost(sample).bytes == sampled + 3 * 3 * 4);
  CHECK(cost(loss).bytes == trained + 3 * 3 * 4);
}
