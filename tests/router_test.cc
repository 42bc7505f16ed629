// The gate: choice, weights, plan and balance as op.h states them, its backward as their slope.
#include <cmath>
#include <numeric>

#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

void run(const Op& op) { run_op(op); }

struct Gate {
  Gate(std::int64_t rows, std::int64_t dim, std::int64_t experts, std::int64_t slots, std::int64_t sequences = 1)
      : x(normal(rows, dim, 1)),
        weight(normal(experts, dim, 2)),
        bias(normal(1, experts, 3)),
        scores(rows, experts),
        indices(rows, slots, Dtype::i32),
        weights(rows, slots),
        position(rows, slots, Dtype::i32),
        sorted_token(rows * slots, 1, Dtype::i32),
        sorted_weight(rows * slots, 1),
        counts(1, experts, Dtype::i32),
        fraction(sequences, experts),
        balance(1, sequences) {
    op.x = x, op.weight = weight, op.bias = bias, op.scores = scores, op.indices = indices, op.weights = weights;
    op.position = position, op.sorted_token = sorted_token, op.sorted_weight = sorted_weight, op.counts = counts;
    op.sequence_fraction = fraction, op.balance = balance, op.scaling = 2.5F;
    op.rows_per_sequence = static_cast<int>(rows / sequences);
  }
  Owned x, weight, bias, scores, indices, weights, position, sorted_token, sorted_weight, counts, fraction, balance;
  Router op{};
};

// Experts of a row by falling value, ties to the lower index.
std::vector<std::int64_t> falling(const std::vector<double>& values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  return order;
}

// Row t's choices: scores + bias in float, with all but the best groups out of the question.
std::vector<double> choices(const Gate& gate, std::int64_t t) {
  const std::int64_t experts = gate.scores.tensor().cols, size = experts / gate.op.groups;
  std::vector<double> choice, worth;
  for (std::int64_t e = 0; e < experts; ++e)
    choice.push_back(
        static_cast<double>(static_cast<float>(gate.scores.at(t, e)) + static_cast<float>(gate.bias.at(0, e))));
  for (std::int64_t g = 0; g < gate.op.groups; ++g) {
    std::vector<double> group(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(group.rbegin(), group.rend());
    worth.push_back(static_cast<double>(static_cast<float>(group[0]) + static_cast<float>(size > 1 ? group[1] : 0)));
  }
  const auto groups = falling(worth);
  for (auto out = groups.begin() + gate.op.groups_kept; out != groups.end(); ++out)
    std::fill_n(choice.begin() + *out * size, size, -INFINITY);
  return choice;
}

}  // namespace

TEST_CASE("the router takes the best experts of the best groups and weighs them without the bias", "[router]") {
  for (const bool normalize : {true, false})
    for (const auto& [groups, kept] : {std::pair{1, 1}, {4, 2}, {12, 5}}) {
      Gate gate(30, 9, 12, 3);
      gate.op.groups = groups, gate.op.groups_kept = kept, gate.op.normalize = normalize;
      run(gate.op);
      Grid logits(30, 12);
      for (std::int64_t t = 0; t < 30; ++t)
        for (std::int64_t e = 0; e < 12; ++e)
          for (std::int64_t d = 0; d < 9; ++d) logits(t, e) += gate.x.at(t, d) * gate.weight.at(e, d);
      CHECK(distance(gate.scores, gate_scores(logits)) < sum_tolerance(9, 8));
      for (std::int64_t t = 0; t < 30; ++t) {
        const auto best = falling(choices(gate, t));
        for (std::int64_t k = 0; k < 3; ++k)
          CHECK(gate.indices.at(t, k) == static_cast<double>(best[static_cast<std::size_t>(k)]));
      }
      CHECK(distance(gate.weights, gate_weights(Grid{gate.scores}, gate.indices, normalize, 2.5)) <
            sum_tolerance(6, 2.5));
    }
}

TEST_CASE("equal choices go to the lower expert", "[router]") {
  Gate gate(2, 4, 8, 3);
  run(Fill{gate.weight, 0});
  run(Fill{gate.bias, 0});
  run(gate.op);
  for (std::int64_t k = 0; k < 3; ++k) CHECK(gate.indices.at(1, k) == static_cast<double>(k));
}

TEST_CASE("the plan sorts rows by expert and token and loses none", "[router]") {
  Gate gate(40, 6, 7, 2);
  run(gate.op);
  std::vector<std::pair<std::int64_t, std::int64_t>> sorted;
  for (std::int64_t t = 0; t < 40; ++t)
    for (std::int64_t k = 0; k < 2; ++k) sorted.emplace_back(static_cast<std::int64_t>(gate.indices.at(t, k)), t);
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t t = 0; t < 40; ++t)
    for (std::int64_t k = 0; k < 2; ++k) {
      const auto p = static_cast<std::int64_t>(gate.position.at(t, k));
      REQUIRE((p >= 0 && p < 80));
      CHECK(sorted[static_cast<std::size_t>(p)] == std::pair{static_cast<std::int64_t>(gate.indices.at(t, k)), t});
      CHECK(gate.sorted_token.at(p, 0) == static_cast<double>(t));
      CHECK(gate.sorted_weight.at(p, 0) == gate.weights.at(t, k));
    }
  for (std::int64_t e = 0; e < 7; ++e)
    CHECK(gate.counts.at(0, e) == static_cast<double>(std::count_if(sorted.begin(), sorted.end(),
                                                                    [&](const auto& row) { return row.first == e; })));
}

TEST_CASE("recomputation keeps the choices that were made", "[router]") {
  Gate gate(5, 6, 7, 2);
  run(gate.op);
  const Owned indices = integers(5, 2, {6, 0, 1, 2, 2, 1, 3, 5, 0, 6});
  gate.op.indices = indices, gate.op.reuse_indices = true;
  run(gate.op);
  CHECK(same_bits(indices, integers(5, 2, {6, 0, 1, 2, 2, 1, 3, 5, 0, 6})));
  CHECK(distance(gate.weights, gate_weights(Grid{gate.scores}, indices, true, 2.5)) < sum_tolerance(4, 2.5));
}

TEST_CASE("the router's backward is the slope of the weights and of the balance loss", "[router]") {
  for (const bool normalize : {true, false}) {
    Gate gate(12, 6, 7, 2, 3);
    gate.op.normalize = normalize;
    run(gate.op);
    const Owned dots = normal(24, 1, 9), slope(12, 7);
    const float balance_scale = 0.3F / 4;  // alpha / T for a batch of one sequence
    run(RouterBackward{.scores = gate.scores,
                       .indices = gate.indices,
                       .weights = gate.weights,
                       .position = gate.position,
                       .dots = dots,
                       .dlogits = slope,
                       .sequence_fraction = gate.fraction,
                       .rows_per_sequence = 4,
                       .normalize = normalize,
                       .scaling = 2.5F,
                       .balance_scale = balance_scale});
    Grid logits{gate.scores}, fraction{gate.fraction};
    for (double& s : logits.values) s = std::log(s / (1 - s));
    const auto balance = [&](const Grid& scores, std::int64_t b) {
      double loss = 0;
      for (std::int64_t t = 4 * b; t < 4 * b + 4; ++t) {
        double sum = 0, weighed = 0;
        for (std::int64_t e = 0; e < 7; ++e) sum += scores(t, e), weighed += fraction(b, e) * scores(t, e);
        loss += weighed / sum / 4;
      }
      return loss;
    };
    const auto loss = [&](const Grid& at) {
      const Grid scores = gate_scores(at), weights = gate_weights(scores, gate.indices, normalize, 2.5);
      double sum = 0;
      for (std::int64_t t = 0; t < 12; ++t)
        for (std::int64_t k = 0; k < 2; ++k)
          sum += weights(t, k) * dots.at(static_cast<std::int64_t>(gate.position.at(t, k)), 0);
      for (std::int64_t b = 0; b < 3; ++b) sum += 0.3 * balance(scores, b);
      return sum;
    };
    CHECK(distance(slope, gradient(loss, logits)) < sum_tolerance(14, 8));
    for (std::int64_t b = 0; b < 3; ++b) {
      CHECK(close(gate.balance.at(0, b), balance(Grid{gate.scores}, b), sum_tolerance(14, 2)));
      double total = 0;
      for (std::int64_t e = 0; e < 7; ++e) total += gate.fraction.at(b, e);
      CHECK(close(total, 7, 1e-5));  // every token counts K times: sum_e f = E
    }
  }
}
