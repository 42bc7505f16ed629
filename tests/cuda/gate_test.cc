// The router and its backward have the CPU's bits, whatever the tile, the block and the order of threads.
#include "tests/cuda/beside_cpu.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

struct Shape {
  std::int64_t rows, dim, experts, slots;
  int groups = 1, groups_kept = 1;
  std::int64_t sequences = 0;
  Dtype dtype = Dtype::f32;
  bool aligned = true;
};

// A router's outputs and its backward's, in tensors of their own.
struct Gate {
  explicit Gate(const Shape& s)
      : scores(s.rows, s.experts, Dtype::f32, 3),
        indices(s.rows, s.slots, Dtype::i32, 1),
        weights(s.rows, s.slots, Dtype::f32, 2),
        position(s.rows, s.slots, Dtype::i32),
        sorted_token(s.rows * s.slots, 1, Dtype::i32),
        sorted_weight(s.rows * s.slots, 1, Dtype::f32, 1),
        counts(1, s.experts, Dtype::i32),
        fraction(s.sequences, s.experts, Dtype::f32, 1),
        balance(1, s.sequences),
        slope(s.rows, s.experts, s.dtype, 5) {
    op.scores = scores, op.indices = indices, op.weights = weights, op.position = position;
    op.sorted_token = sorted_token, op.sorted_weight = sorted_weight, op.counts = counts;
    if (s.sequences > 0) op.sequence_fraction = fraction, op.balance = balance;
    op.rows_per_sequence = static_cast<int>(s.sequences > 0 ? s.rows / s.sequences : 1);
    op.groups = s.groups, op.groups_kept = s.groups_kept, op.scaling = 2.5F;
  }
  RouterBackward backward(const Tensor& dots, float balance_scale) const {
    return {.scores = op.scores,
            .indices = op.indices,
            .weights = op.weights,
            .position = op.position,
            .dots = dots,
            .dlogits = slope,
            .sequence_fraction = op.sequence_fraction,
            .rows_per_sequence = op.rows_per_sequence,
            .normalize = op.normalize,
            .scaling = op.scaling,
            .balance_scale = balance_scale};
  }
  Owned scores, indices, weights, position, sorted_token, sorted_weight, counts, fraction, balance, slope;
  Router op{};
};

void expect_same(const Gate& there, const Gate& here) {
  CHECK(same_bits(there.scores, here.scores));
  CHECK(same_bits(there.indices, here.indices));
  CHECK(same_bits(there.weights, here.weights));
  CHECK(same_bits(there.position, here.position));
  CHECK(same_bits(there.sorted_token, here.sorted_token));
  CHECK(same_bits(there.sorted_weight, here.sorted_weight));
  CHECK(same_bits(there.counts, here.counts));
  CHECK(same_bits(there.fraction, here.fraction));
  if (here.op.balance) CHECK(same_bits(there.balance, here.balance));
  CHECK(same_bits(there.slope, here.slope));
  for (const Owned* x : {&there.scores, &there.indices, &there.weights, &there.sorted_weight, &there.slope})
    CHECK(x->canaries_alive());
}

void expect_the_cpus_bits(const Shape& s) {
  const Owned x = normal(s.rows, s.dim + 1, 1, s.dtype, s.aligned ? 15 - s.dim % 8 : 2),
              weight = normal(s.experts, s.dim + 1, 2, Dtype::f32, s.aligned ? 7 - s.dim % 4 : 0),
              bias = normal(1, s.experts, 3), dots = normal(s.rows * s.slots, 1, 4);
  Gate there(s), here(s);
  for (const bool normalize : {true, false}) {
    for (Gate* gate : {&there, &here}) {
      gate->op.x = x.tensor().columns(s.aligned ? 0 : 1, s.dim);
      gate->op.weight = weight.tensor().columns(s.aligned ? 0 : 1, s.dim);
      gate->op.bias = bias, gate->op.normalize = normalize;
    }
    run_op(there.op);
    run_on_cpu(here.op);
    run_op(there.backward(dots, 0.3F));
    run_on_cpu(here.backward(dots, 0.3F));
    expect_same(there, here);
  }
}

}  // namespace

TEST_CASE("the router has the CPU's bits at any shape", "[router]") {
  expect_the_cpus_bits({.rows = 1, .dim = 1, .experts = 1, .slots = 1});
  expect_the_cpus_bits({.rows = 5, .dim = 130, .experts = 7, .slots = 3, .sequences = 1});
  expect_the_cpus_bits(
      {.rows = 70, .dim = 67, .experts = 64, .slots = 6, .groups = 8, .groups_kept = 3, .sequences = 2});
  expect_the_cpus_bits(
      {.rows = 33, .dim = 64, .experts = 256, .slots = 8, .groups = 8, .groups_kept = 4, .dtype = Dtype::bf16});
  expect_the_cpus_bits({.rows = 300, .dim = 35, .experts = 40, .slots = 40, .sequences = 3, .dtype = Dtype::bf16});
  expect_the_cpus_bits({.rows = 66,
                        .dim = 41,
                        .experts = 36,
                        .slots = 4,
                        .groups = 36,
                        .groups_kept = 9,
                        .sequences = 66,
                        .aligned = false});
  expect_the_cpus_bits({.rows = 20, .dim = 41, .experts = 36, .slots = 4, .dtype = Dtype::bf16, .aligned = false});
}

// Enough rows and experts for tiles of every size.
TEST_CASE("large and small tiles add in one order", "[router]") {
  for (const Dtype type : kTypes) {
    const Owned x = normal(1100, 140, 1, type), weight = normal(1024, 140, 2), bias = normal(1, 1024, 3);
    const auto scores_of = [&](std::int64_t rows, std::int64_t experts) {
      Gate gate({.rows = rows, .dim = 140, .experts = experts, .slots = 2});
      gate.op.x = x.tensor().row_range(0, rows), gate.op.weight = weight.tensor().row_range(0, experts);
      gate.op.bias = bias.tensor().columns(0, experts);
      run_op(gate.op);
      return std::move(gate.scores);
    };
    const Owned large = scores_of(1100, 1024), middle = scores_of(300, 1024), small = scores_of(40, 64);
    CHECK(same_bits(large.tensor().row_range(0, 300), middle));
    CHECK(same_bits(large.tensor().row_range(0, 40).columns(0, 64), small));
  }
}

TEST_CASE("blocks of rows by the dozen keep the plan's order", "[router]") {
  expect_the_cpus_bits({.rows = 1100, .dim = 3, .experts = 5, .slots = 2});
}

TEST_CASE("sequences longer than what is staged, and many short ones, keep the order of their tokens", "[router]") {
  expect_the_cpus_bits({.rows = 600, .dim = 5, .experts = 33, .slots = 2, .sequences = 2});
  expect_the_cpus_bits({.rows = 270, .dim = 5, .experts = 12, .slots = 2, .sequences = 90});
}

TEST_CASE("equal scores go to the lower expert and the lower group", "[router]") {
  Shape s{.rows = 40, .dim = 3, .experts = 64, .slots = 6, .groups = 8, .groups_kept = 3, .sequences = 1};
  Gate there(s), here(s);
  const Owned x(40, 3), weight(64, 3), bias(1, 64), dots = normal(240, 1, 4);
  for (std::int64_t t = 0; t < 40; ++t)
    for (std::int64_t d = 0; d < 3; ++d) x.tensor().row<float>(t)[d] = static_cast<float>(t % 5 - 2);
  for (std::int64_t e = 0; e < 64; ++e) {
    for (std::int64_t d = 0; d < 3; ++d) weight.tensor().row<float>(e)[d] = static_cast<float>(e % 3);
    bias.tensor().row<float>(0)[e] = e % 7 == 0 ? -0.0F : 0.0F;
  }
  for (Gate* gate : {&there, &here}) gate->op.x = x, gate->op.weight = weight, gate->op.bias = bias;
  run_op(there.op);
  run_on_cpu(here.op);
  run_op(there.backward(dots, 0.1F));
  run_on_cpu(here.backward(dots, 0.1F));
  expect_same(there, here);
}

TEST_CASE("choices that were made are kept, one expert twice too", "[router]") {
  const Shape s{.rows = 37, .dim = 6, .experts = 7, .slots = 2};
  Gate there(s), here(s);
  const Owned x = normal(37, 6, 1), weight = normal(7, 6, 2), bias = normal(1, 7, 3), dots = normal(74, 1, 4);
  for (Gate* gate : {&there, &here}) {
    gate->op.x = x, gate->op.weight = weight, gate->op.bias = bias, gate->op.reuse_indices = true;
    for (std::int64_t t = 0; t < 37; ++t)
      for (std::int64_t k = 0; k < 2; ++k)
        gate->indices.tensor().row<std::int32_t>(t)[k] = static_cast<std::int32_t>(t * (k + 1) % 7);
  }
  run_op(there.op);
  run_on_cpu(here.op);
  run_op(there.backward(dots, 0));
  run_on_cpu(here.backward(dots, 0));
  expect_same(there, here);
}

TEST_CASE("no rows are counted as none", "[router]") {
  const Owned weight = normal(5, 4, 2), bias = normal(1, 5, 3), counts(1, 5, Dtype::i32);
  Router op{};
  op.weight = weight, op.bias = bias, op.counts = counts;
  op.x.cols = 4, op.scores.cols = 5, op.indices.cols = op.weights.cols = op.position.cols = 2;
  op.sorted_token.cols = op.sorted_weight.cols = 1;
  for (Tensor* numbers : {&op.indices, &op.position, &op.sorted_token}) numbers->dtype = Dtype::i32;
  run_op(op);
  for (std::int64_t e = 0; e < 5; ++e) CHECK(counts.at(0, e) == 0);
}
