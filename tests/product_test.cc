// Product keeps its law to the bit: every element is the naive chain of fused multiply-adds, whatever surrounds it. Where
// a device adds products of bfloat16 in blocks, those are within rounding of it.
#include <bit>
#include <cmath>
#include <vector>

#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

struct Case {
  std::int64_t m, n, k;
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false, add = false;
  Dtype a = Dtype::f32, b = Dtype::f32, c = Dtype::f32;
  std::int64_t slack = 0;
};

struct Operands {
  explicit Operands(const Case& x)
      : a(x.transpose_a ? normal(x.k, x.m, 1, x.a, x.slack) : normal(x.m, x.k, 1, x.a, x.slack)),
        b(x.transpose_b ? normal(x.n, x.k, 2, x.b, x.slack) : normal(x.k, x.n, 2, x.b, x.slack)),
        c(normal(x.m, x.n, 3, x.c, x.slack)),
        bias(normal(1, x.n, 4, x.b)),
        add(normal(x.m, x.n, 5, x.a, x.slack)),
        op{.a = a,
           .b = b,
           .c = c,
           .transpose_a = x.transpose_a,
           .transpose_b = x.transpose_b,
           .accumulate = x.accumulate} {
    if (x.bias) op.bias = bias;
    if (x.add) op.add = add;
  }
  Owned a, b, c, bias, add;
  Product op;
};

bool is_chain(const Product& op) {
  return half_products_are_chains() || op.a.dtype == Dtype::f32 || op.b.dtype == Dtype::f32;
}

// How far element (i, j) may be from the chain that begins with `start`.
double tolerance(const Product& op, std::int64_t i, std::int64_t j, double start, double expected) {
  const std::int64_t depth = op.transpose_a ? op.a.rows : op.a.cols;
  double size = std::abs(start) + (op.bias ? std::abs(element(op.bias, 0, j)) : 0) +
                (op.add ? std::abs(element(op.add, i, j)) : 0);
  for (std::int64_t k = 0; k < depth; ++k)
    size += std::abs((op.transpose_a ? element(op.a, k, i) : element(op.a, i, k)) *
                     (op.transpose_b ? element(op.b, j, k) : element(op.b, k, j)));
  const double sum = sum_tolerance(2 * static_cast<double>(depth), size);  // of both
  return op.c.dtype == Dtype::f32 ? sum : sum + kHalfEps * std::abs(expected);
}

// The elements that differ from the naive chain in any bit, or by more than such a device may.
int wrong_elements(const Case& x) {
  Operands o(x);
  const Grid start{o.c};
  run_op(o.op);
  int wrong = 0;
  for (std::int64_t i = 0; i < x.m; ++i)
    for (std::int64_t j = 0; j < x.n; ++j) {
      const float from = x.accumulate ? static_cast<float>(start(i, j)) : 0.0F;
      const float expected = product_element(o.op, i, j, from), actual = static_cast<float>(o.c.at(i, j));
      const bool same = std::bit_cast<std::uint32_t>(expected) == std::bit_cast<std::uint32_t>(actual);
      const bool right = same || (!is_chain(o.op) && close(actual, expected, tolerance(o.op, i, j, from, expected)));
      wrong += right ? 0 : 1;
    }
  return wrong + (o.c.canaries_alive() ? 0 : 1000000);
}

}  // namespace

TEST_CASE("a product of any shape and form is the naive chain, bit for bit", "[product]") {
  const std::int64_t shapes[][3] = {{1, 1, 1},     {1, 64, 33},    {2, 40, 17},   {3, 16, 8},    {5, 31, 9},
                                    {6, 16, 16},   {7, 17, 257},   {8, 100, 64},  {13, 48, 300}, {64, 33, 5},
                                    {255, 37, 20}, {260, 16, 513}, {11, 530, 12}, {1, 600, 270}, {2, 513, 260}};
  for (const auto& shape : shapes)
    for (int form = 0; form < 4; ++form)
      for (const bool accumulate : {false, true}) {
        const Case x{.m = shape[0],
                     .n = shape[1],
                     .k = shape[2],
                     .transpose_a = form / 2 == 1,
                     .transpose_b = form % 2 == 1,
                     .accumulate = accumulate,
                     .slack = form};
        INFO(x.m << " x " << x.n << " x " << x.k << " form " << form << " accumulate " << accumulate);
        CHECK(wrong_elements(x) == 0);
      }
}

TEST_CASE("bfloat16 operands are read exactly and a bfloat16 result is rounded once", "[product]") {
  for (int form = 0; form < 4; ++form)
    for (int types = 0; types < 8; ++types) {
      const auto type = [&](int bit) { return (types >> bit & 1) != 0 ? Dtype::bf16 : Dtype::f32; };
      for (const std::int64_t m : {1, 6, 19}) {
        INFO("form " << form << " types " << types << " rows " << m);
        CHECK(wrong_elements({.m = m,
                              .n = 37,
                              .k = 301,
                              .transpose_a = form / 2 == 1,
                              .transpose_b = form % 2 == 1,
                              .a = type(0),
                              .b = type(1),
                              .c = type(2),
                              .slack = 3}) == 0);
      }
    }
}

TEST_CASE("bias and then add come after the last term", "[product]") {
  for (int extras = 1; extras < 8; ++extras)
    for (const Dtype type : {Dtype::f32, Dtype::bf16})
      for (const std::int64_t n : {16, 48, 61})
        CHECK(wrong_elements({.m = 9,
                              .n = n,
                              .k = 270,
                              .transpose_b = true,
                              .accumulate = (extras & 4) != 0,
                              .bias = (extras & 1) != 0,
                              .add = (extras & 2) != 0,
                              .a = type,
                              .b = type,
                              .slack = 1}) == 0);
}

TEST_CASE("a product may add its own old value", "[product]") {
  Operands o({.m = 9, .n = 40, .k = 300});
  const Owned old = normal(9, 40, 3);
  Product apart = o.op, in_place = o.op;
  const Owned expected(9, 40);
  apart.c = expected, apart.add = old;
  in_place.add = in_place.c;
  run_op(apart);
  run_op(in_place);
  CHECK(same_bits(o.c, expected));
}

TEST_CASE("an accumulating product may be cut anywhere along its inner dimension", "[product]") {
  for (int form = 0; form < 4; ++form) {
    Operands whole(
        {.m = 14, .n = 35, .k = 300, .transpose_a = form / 2 == 1, .transpose_b = form % 2 == 1, .accumulate = true});
    run_op(whole.op);
    for (const std::int64_t cut : {1, 7, 128, 255, 256, 299}) {
      const Owned c = normal(14, 35, 3);
      for (const auto& [begin, count] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, 300 - cut}}) {
        Product part = whole.op;
        part.c = c;
        part.a = part.transpose_a ? part.a.row_range(begin, count) : part.a.columns(begin, count);
        part.b = part.transpose_b ? part.b.columns(begin, count) : part.b.row_range(begin, count);
        run_op(part);
      }
      CHECK(same_bits(c, whole.c));
    }
  }
}

TEST_CASE("a row of a product has the same bits alone or among any number of rows", "[product]") {
  Operands all({.m = 300, .n = 70, .k = 90, .transpose_b = true});
  run_op(all.op);
  for (const auto& [begin, count] : {std::pair{0, 1}, {299, 1}, {17, 2}, {100, 6}, {250, 7}, {3, 31}}) {
    Product some = all.op;
    const Owned c(count, 70);
    some.a = some.a.row_range(begin, count), some.c = c;
    run_op(some);
    CHECK(same_bits(c, all.c.tensor().row_range(begin, count)));
  }
}

TEST_CASE("a grouped product is a product a run, bit for bit, whatever runs are empty", "[product]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const bool transpose : {false, true}) {
      const RecycledVector<std::int32_t> rows{0, 3, 1, 0, 20, 140, 0};
      const Owned a = normal(164, 70, 1, type, 2), c = normal(164, 40, 2, type, 8), expected(164, 40, type);
      std::vector<Owned> b;
      GroupedProduct op{.a = a, .c = c, .b = {}, .rows = rows, .transpose_b = transpose};
      std::int64_t row = 0;
      for (std::size_t r = 0; r < rows.size(); row += rows[r++]) {
        b.push_back(transpose ? normal(40, 70, 3 + r, type, 2) : normal(70, 40, 3 + r, type, 8));
        op.b.push_back(b.back());
        if (rows[r] > 0)
          run_op(Product{.a = a.tensor().row_range(row, rows[r]),
                         .b = b.back(),
                         .c = expected.tensor().row_range(row, rows[r]),
                         .transpose_b = transpose});
      }
      run_op(op);
      CHECK(same_bits(c, expected));
      CHECK(c.canaries_alive());
    }
}

TEST_CASE("a sum of -0 stays one while nothing else is added", "[product]") {
  const Owned b = normal(3, 5, 1);
  Owned a(2, 3), c(2, 5), positive(3, 5);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 5; ++j) positive.set(i, j, std::abs(b.at(i, j)));
    for (std::int64_t j = 0; j < 2; ++j) a.set(j, i, -0.0);
  }
  for (std::int64_t i = 0; i < 2; ++i)
    for (std::int64_t j = 0; j < 5; ++j) c.set(i, j, -0.0);
  run_op(Product{.a = a, .b = positive, .c = c, .accumulate = true});
  for (std::int64_t j = 0; j < 5; ++j) CHECK(std::signbit(c.at(1, j)));
}

TEST_CASE("a product over nothing is zero, or what was there", "[product]") {
  Operands fresh({.m = 3, .n = 5, .k = 0}), kept({.m = 3, .n = 5, .k = 0, .transpose_a = true, .accumulate = true});
  run_op(fresh.op);
  run_op(kept.op);
  CHECK(distance(fresh.c, Grid(3, 5)) == 0);
  CHECK(same_bits(kept.c, normal(3, 5, 3)));
}
