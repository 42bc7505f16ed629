// Products of bfloat16 on tensor cores: an element's bits depend on its row, its column and blocks of 16 along k, and on
// nothing else: not on the tile, nor on what shares it, nor on how memory is aligned.
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tests/cuda/beside_cpu.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

constexpr Dtype kHalf = Dtype::bf16;

// Columns first .. of a wider tensor: with 8, rows begin where 16 bytes may, with 3 they don't.
struct Within {
  Within(const Tensor& like, std::int64_t first)
      : wide(like.rows, (like.cols + 7) / 8 * 8 + 8, like.dtype), view(wide.tensor().columns(first, like.cols)) {
    for (std::int64_t row = 0; row < like.rows; ++row)
      std::memcpy(view.address(row, 0), like.address(row, 0),
                  static_cast<std::size_t>(like.cols) * bytes_of(like.dtype));
  }
  Owned wide;
  Tensor view;
};

struct Form {
  bool transpose_a, transpose_b;
};
constexpr Form kForms[] = {{false, true}, {false, false}, {true, false}, {true, true}};

// a: (m, k) and b: (k, n), as the form has them.
Owned left(Form form, std::int64_t m, std::int64_t k) {
  return form.transpose_a ? normal(k, m, 1, kHalf) : normal(m, k, 1, kHalf);
}
Owned right(Form form, std::int64_t k, std::int64_t n) {
  return form.transpose_b ? normal(n, k, 2, kHalf) : normal(k, n, 2, kHalf);
}
Product product(Form form, const Tensor& a, const Tensor& b, const Tensor& c) {
  return {.a = a, .b = b, .c = c, .transpose_a = form.transpose_a, .transpose_b = form.transpose_b};
}

}  // namespace

TEST_CASE("a bfloat16 product is right in every form and tile, and its bits are those of the slow path", "[product]") {
  const std::int64_t shapes[][3] = {{1, 8, 1},    {130, 33, 16},  {5, 100, 65},  {129, 128, 200},
                                    {3, 256, 63}, {70, 256, 257}, {2, 530, 300}, {200, 64, 128}};
  for (const auto& [m, n, k] : shapes)
    for (const Form form : kForms)
      for (const bool accumulate : {false, true}) {
        INFO(m << " x " << n << " x " << k << " form " << form.transpose_a << form.transpose_b << accumulate);
        const Owned a = left(form, m, k), b = right(form, k, n), c = normal(m, n, 3, Dtype::f32, 1),
                    apart = normal(m, n, 3);
        const Within fast_a(a, 8), fast_b(b, 0), slow_a(a, 3), slow_b(b, 1);
        const Grid start{c};
        Product fast = product(form, fast_a.view, fast_b.view, c),
                slow = product(form, slow_a.view, slow_b.view, apart);
        fast.accumulate = slow.accumulate = accumulate;
        run_op(fast);
        run_op(slow);
        CHECK(worst_error(fast, start) <= 1);
        CHECK(same_bits(c, apart));
        CHECK(c.canaries_alive());
      }
}

TEST_CASE("an accumulating bfloat16 product may be cut at every multiple of 16", "[product]") {
  const std::int64_t m = 20, n = 72, k = 300;
  for (const Form form : kForms) {
    const Owned a = left(form, m, k), b = right(form, k, n), whole = normal(m, n, 3);
    const Within fast_a(a, 0), fast_b(b, 0);
    Product op = product(form, fast_a.view, fast_b.view, whole);
    op.accumulate = true;
    run_op(op);
    for (const std::int64_t cut : {16, 64, 112, 128, 288}) {
      INFO("form " << form.transpose_a << form.transpose_b << " cut " << cut);
      const Owned c = normal(m, n, 3);
      for (const auto& [begin, count] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, k - cut}}) {
        Product part = op;
        part.c = c;
        part.a = form.transpose_a ? op.a.row_range(begin, count) : op.a.columns(begin, count);
        part.b = form.transpose_b ? op.b.columns(begin, count) : op.b.row_range(begin, count);
        run_op(part);
      }
      CHECK(same_bits(c, whole));
    }
  }
}

TEST_CASE("what lies behind the last block of 16 isn't added, not even as zeros: a sum of -0 knows", "[product]") {
  Owned a(1, 64, kHalf);
  for (std::int64_t k = 0; k < 64; ++k) a.set(0, k, -0.0);
  const auto sum_over = [&](std::int64_t depth) {
    const Owned b = normal(24, 64, 2, kHalf);
    Owned positive(24, 64, kHalf), c(1, 24);
    for (std::int64_t j = 0; j < 24; ++j) {
      c.set(0, j, -0.0);
      for (std::int64_t k = 0; k < 64; ++k) positive.set(j, k, std::abs(b.at(j, k)));
    }
    Product op{
        .a = a.tensor().columns(0, depth), .b = positive.tensor().columns(0, depth), .c = c, .transpose_b = true};
    op.accumulate = true;
    run_op(op);
    return c;
  };
  const Owned whole = sum_over(64);
  for (const std::int64_t depth : {16, 32, 48}) CHECK(same_bits(sum_over(depth), whole));
  for (std::int64_t j = 0; j < 24; ++j) CHECK(std::signbit(sum_over(0).at(0, j)));
}

TEST_CASE("a row of a bfloat16 product has the same bits alone or among any number of rows", "[product]") {
  const std::int64_t n = 100, k = 90;
  for (const Form form : {kForms[0], kForms[1]})
    for (const Dtype type : {Dtype::f32, kHalf}) {
      const Owned a = normal(300, k, 1, kHalf, 6), b = right(form, k, n), bias = normal(1, n, 4, kHalf);
      const Owned add = normal(300, n, 5), all(300, n, type);
      const Within fast_b(b, 0);
      Product op = product(form, a, fast_b.view, all);
      op.bias = bias, op.add = add;
      run_op(op);
      for (const auto& [begin, count] : {std::pair{0, 1}, {299, 1}, {17, 2}, {100, 60}, {3, 131}}) {
        Product some = op;
        const Owned c(count, n, type);
        some.a = op.a.row_range(begin, count), some.add = op.add.row_range(begin, count), some.c = c;
        run_op(some);
        CHECK(same_bits(c, all.tensor().row_range(begin, count)));
      }
    }
}

TEST_CASE("bias and add come after a bfloat16 product's last term and are rounded with it once", "[product]") {
  const std::int64_t m = 40, n = 88, k = 100;
  const Form form = kForms[0];
  const Owned a = left(form, m, k), b = right(form, k, n), bias = normal(1, n, 4), add = normal(m, n, 5), sums(m, n);
  const Within fast_a(a, 0), fast_b(b, 0);
  run_op(product(form, fast_a.view, fast_b.view, sums));
  const Owned c(m, n, kHalf), expected(m, n, kHalf);
  Product op = product(form, fast_a.view, fast_b.view, c);
  op.bias = bias, op.add = add;
  run_op(op);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const float sum = static_cast<float>(sums.at(i, j)) + static_cast<float>(bias.at(0, j));
      expected.tensor().row<std::uint16_t>(i)[j] = round_to_bf16(sum + static_cast<float>(add.at(i, j)));
    }
  CHECK(same_bits(c, expected));
}

TEST_CASE("a float32 product of many tiles is the CPU's, bit for bit", "[product]") {
  const std::int64_t m = 2100, n = 2050, k = 21;
  const Owned a = normal(m, k, 1), b = normal(n, k, 2, kHalf), add = normal(m, n, 5);
  for (const bool transpose : {false, true}) {
    const Owned down = normal(k, n, 4), actual(m, n), expected(m, n);
    Product op{.a = a, .b = transpose ? b : down, .c = actual, .transpose_b = transpose, .add = add};
    run_op(op);
    op.c = expected;
    run_on_cpu(op);
    CHECK(same_bits(actual, expected));
  }
}

TEST_CASE("a float32 product of many tiles and a short sum is the CPU's, where it is added to itself too",
          "[product]") {
  const std::int64_t m = 2100, n = 2052, k = 20;
  const Owned a = normal(m, k, 1), b = normal(k, n, 2), add = normal(m, n, 3);
  for (const bool accumulate : {false, true})
    for (const int added : {0, 1, 2}) {
      const Owned actual = normal(m, n, 4, Dtype::f32, 4), expected = normal(m, n, 4, Dtype::f32, 4);
      const auto one = [&](const Tensor& c) {
        return Product{.a = a,
                       .b = b,
                       .c = c,
                       .accumulate = accumulate,
                       .add = added == 0   ? Tensor{}
                              : added == 1 ? add.tensor()
                                           : c};
      };
      run_op(one(actual));
      run_on_cpu(one(expected));
      CHECK(same_bits(actual, expected));
      CHECK(actual.canaries_alive());
    }
}

TEST_CASE("a grouped product of many runs goes by itself as its products would", "[product]") {
  const std::int64_t depth = 48, cols = 72;
  RecycledVector<std::int32_t> rows;
  std::int64_t total = 0;
  for (int r = 0; r < 200; ++r) total += rows.emplace_back(r == 77 ? 300 : r % 4);
  const Owned a = normal(total, depth, 1, kHalf), b = normal(200 * cols, depth, 2, kHalf), c(total, cols, kHalf);
  const Owned expected(total, cols, kHalf);
  GroupedProduct op{.a = a, .c = c, .b = {}, .rows = rows, .transpose_b = true};
  Ops alone;
  std::int64_t row = 0;
  for (int r = 0; r < 200; row += rows[static_cast<std::size_t>(r++)]) {
    const std::int32_t count = rows[static_cast<std::size_t>(r)];
    op.b.push_back(b.tensor().row_range(r * cols, cols));
    if (count > 0)
      alone.push_back(Product{.a = a.tensor().row_range(row, count),
                              .b = op.b.back(),
                              .c = expected.tensor().row_range(row, count),
                              .transpose_b = true});
  }
  run_op(op);
  for (const Op& one : alone) run_op(one);
  CHECK(same_bits(c, expected));
}

TEST_CASE("weight gradients that go together add what each would alone, in their order", "[product]") {
  const std::int64_t rows[] = {5, 16, 70, 1, 130, 33};
  std::vector<Owned> a, b;
  for (std::uint64_t m = 0; m < 6; ++m) {
    a.push_back(normal(rows[m], 136, 2 * m, kHalf));
    b.push_back(normal(rows[m], 72, 2 * m + 1, kHalf));
  }
  // Of each op: which rows, and to which sum; the widths differ, sum 0 comes again behind others.
  const std::pair<std::size_t, std::size_t> plan[] = {{0, 0}, {1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 2}, {2, 0}, {1, 3}};
  const auto sums = [] {
    std::vector<Owned> c;
    for (std::uint64_t s = 0; s < 4; ++s) c.push_back(s == 3 ? normal(136, 24, 50 + s) : normal(136, 72, 50 + s));
    return c;
  };
  const std::vector<Owned> alone = sums();
  const auto gradient = [&](const std::pair<std::size_t, std::size_t>& op, const std::vector<Owned>& c) {
    return Product{.a = a[op.first],
                   .b = b[op.first].tensor().columns(0, c[op.second].tensor().cols),
                   .c = c[op.second],
                   .transpose_a = true,
                   .accumulate = true};
  };
  for (const auto& op : plan) run_op(gradient(op, alone));
  for (int again = 0; again < 5; ++again) {  // blocks and threads run in another order
    const std::vector<Owned> together = sums();
    const Owned other(136, 72);
    Ops ops;
    for (const auto& op : plan) ops.push_back(gradient(op, together));
    ops.push_back(Product{.a = a[0], .b = b[0], .c = other, .transpose_a = true});
    run_ops(ops);
    for (std::size_t s = 0; s < alone.size(); ++s) CHECK(same_bits(together[s], alone[s]));
    CHECK(worst_error(std::get<Product>(ops.back()), Grid()) <= 1);
  }
}

TEST_CASE("a product of few elements and a long sum is the CPU's, bit for bit", "[product]") {
  for (const Dtype type : {Dtype::f32, kHalf})
    for (const auto& [k, m, n] : {std::array<std::int64_t, 3>{1, 1, 1}, {128, 16, 32}, {700, 20, 88}, {1030, 64, 40}})
      for (const bool accumulate : {false, true}) {
        INFO(m << " x [" << k << "] x " << n << " " << accumulate);
        const Owned a = normal(k, m, 1), b = normal(k, n, 2, type), actual = normal(m, n, 3, Dtype::f32, 1),
                    expected = normal(m, n, 3, Dtype::f32, 1);
        const Within near_a(a, 0), near_b(b, 8);
        Product op{.a = near_a.view, .b = near_b.view, .c = actual, .transpose_a = true, .accumulate = accumulate};
        run_op(op);
        op.c = expected;
        run_on_cpu(op);
        CHECK(same_bits(actual, expected));
        CHECK(actual.canaries_alive());
      }
}

TEST_CASE("a thin product leaves out what lies behind its sum's end: a sum of -0 knows", "[product]") {
  Owned a(200, 4), b(200, 4), c(4, 4);
  for (std::int64_t k = 0; k < 200; ++k)
    for (std::int64_t i = 0; i < 4; ++i) a.set(k, i, -0.0), b.set(k, i, 1);
  for (std::int64_t i = 0; i < 16; ++i) c.set(i / 4, i % 4, -0.0);
  run_op(Product{.a = a, .b = b, .c = c, .transpose_a = true, .accumulate = true});
  for (std::int64_t i = 0; i < 16; ++i) CHECK(std::signbit(c.at(i / 4, i % 4)));
}
