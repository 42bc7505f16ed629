// Products on warpgroups: the chain over k, whatever the form, the tile and the rows beside.
#include <cuda_runtime.h>

#include "kernels/cuda/product_wgmma.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

// A row of so many bfloat16 begins where a copy of 16 bytes may.
std::int64_t slack_for(std::int64_t cols) { return (8 - cols % 8) % 8 + 8; }

struct Case {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  Dtype type = Dtype::f32;
};

struct Operands {
  explicit Operands(const Case& x)
      : a(x.transpose_a ? normal(x.k, x.m, 1, Dtype::bf16, slack_for(x.m))
                        : normal(x.m, x.k, 1, Dtype::bf16, slack_for(x.k))),
        b(x.transpose_b ? normal(x.n, x.k, 2, Dtype::bf16, slack_for(x.k))
                        : normal(x.k, x.n, 2, Dtype::bf16, slack_for(x.n))),
        c(normal(x.m, x.n, 3, x.type, slack_for(x.n))),
        bias(normal(1, x.n, 4)),
        add(normal(x.m, x.n, 5)),
        op{.a = a,
           .b = b,
           .c = c,
           .transpose_a = x.transpose_a,
           .transpose_b = x.transpose_b,
           .accumulate = x.accumulate,
           .bias = bias,
           .add = add} {}
  Owned a, b, c, bias, add;
  Product op;
};

}  // namespace

TEST_CASE("a product on warpgroups is the sum over k in every form, with ragged sides", "[product][warpgroup]") {
  const std::int64_t shapes[][3] = {{1, 8, 16}, {130, 300, 200}, {264, 512, 72}, {8, 1000, 24}, {200, 264, 0}};
  for (const auto& [m, n, k] : shapes)
    for (int form = 0; form < 4; ++form)
      for (const bool accumulate : {false, true})
        for (const bool biased : {false, true}) {
          const Dtype type = accumulate || form % 2 == 0 ? Dtype::f32 : Dtype::bf16;
          Operands o({m, n, k, form / 2 == 1, form % 2 == 1, accumulate, type});
          if (!biased) o.op.bias = {};
          if (!biased && form % 2 == 1) o.op.add = {};
          if (!cuda::takes_wgmma(o.op)) continue;
          INFO(m << " x " << n << " x " << k << ", form " << form << (accumulate ? ", accumulates" : "")
                 << (biased ? ", biased" : ""));
          const Grid start{o.c};
          run_on_warpgroups(o.op);
          const bool nothing = k == 0 && !o.op.add && !accumulate;
          CHECK((nothing ? distance(o.c, Grid(m, n)) == 0 : worst_error(o.op, start) <= 1));
          CHECK(o.c.canaries_alive());
        }
}

TEST_CASE("long sums on warpgroups come round the stages many times", "[product][warpgroup]") {
  for (const bool accumulate : {false, true}) {
    Operands o({104, 512, 2064, accumulate, false, accumulate, accumulate ? Dtype::f32 : Dtype::bf16});
    o.op.bias = o.op.add = {};
    const Grid start{o.c};
    run_on_warpgroups(o.op);
    CHECK(worst_error(o.op, start) <= 1);
    CHECK(o.c.canaries_alive());
  }
}

TEST_CASE("experts' runs on warpgroups have the bits of products by themselves", "[product][warpgroup]") {
  for (const bool transpose : {false, true}) {
    const RecycledVector<std::int32_t> rows{0, 3, 1, 0, 20, 140, 0, 130};
    const Owned a = normal(294, 72, 1, Dtype::bf16, 8), c = normal(294, 264, 2, Dtype::bf16, 8),
                expected(294, 264, Dtype::bf16);
    std::vector<Owned> b;
    GroupedProduct op{.a = a, .c = c, .b = {}, .rows = rows, .transpose_b = transpose};
    std::int64_t row = 0;
    for (std::size_t r = 0; r < rows.size(); row += rows[r++]) {
      b.push_back(transpose ? normal(264, 72, 3 + r, Dtype::bf16, 8) : normal(72, 264, 3 + r, Dtype::bf16, 8));
      op.b.push_back(b.back());
      if (rows[r] > 0)
        run_on_warpgroups(Product{.a = a.tensor().row_range(row, rows[r]),
                                  .b = b.back(),
                                  .c = expected.tensor().row_range(row, rows[r]),
                                  .transpose_b = transpose});
    }
    run_on_warpgroups(Ops{op});
    CHECK(same_bits(c, expected));
    CHECK(c.canaries_alive());
  }
}

TEST_CASE("weight gradients on warpgroups add what each would alone, in their order", "[product][warpgroup]") {
  // Two sums have products that follow each other; the first comes again behind the others.
  const std::int64_t depths[] = {40, 0, 200, 7, 64, 90};
  const std::size_t sums[] = {0, 0, 1, 2, 2, 0};
  const auto begun = [] {
    std::vector<Owned> c;
    for (std::uint64_t s = 0; s < 3; ++s) c.push_back(normal(128, 120, 90 + s, Dtype::f32, 8));
    return c;
  };
  std::vector<Owned> a, b;
  for (std::size_t i = 0; i < 6; ++i) {
    a.push_back(normal(depths[i], 128, 10 + i, Dtype::bf16, 8));
    b.push_back(normal(depths[i], 120, 20 + i, Dtype::bf16, 8));
  }
  const auto gradient = [&](std::size_t i, const std::vector<Owned>& c) {
    return Product{.a = a[i], .b = b[i], .c = c[sums[i]], .transpose_a = true, .accumulate = true};
  };
  const std::vector<Owned> alone = begun();
  for (std::size_t i = 0; i < 6; ++i) run_on_warpgroups(gradient(i, alone));
  for (int again = 0; again < 5; ++again) {  // blocks and threads run in another order
    const std::vector<Owned> together = begun();
    Ops ops;
    for (std::size_t i = 0; i < 6; ++i) ops.push_back(gradient(i, together));
    run_on_warpgroups(ops);
    for (std::size_t s = 0; s < 3; ++s) CHECK(same_bits(together[s], alone[s]));
  }
}

TEST_CASE("a row's bits on warpgroups are those it has alone", "[product][warpgroup]") {
  const Operands all({300, 264, 144, false, true, false});
  run_on_warpgroups(all.op);
  for (const auto& [begin, count] : {std::pair{0, 1}, {299, 1}, {100, 70}, {64, 130}}) {
    Product some = all.op;
    const Owned c(count, 264);
    some.a = some.a.row_range(begin, count), some.add = some.add.row_range(begin, count), some.c = c;
    run_on_warpgroups(some);
    CHECK(same_bits(c, all.c.tensor().row_range(begin, count)));
  }
}

TEST_CASE("a sum on warpgroups may be cut along k at multiples of 16", "[product][warpgroup]") {
  Operands whole({136, 264, 208, true, false, true});
  whole.op.bias = whole.op.add = {};
  run_on_warpgroups(whole.op);
  for (const std::int64_t cut : {16, 64, 144}) {
    const Owned c = normal(136, 264, 3, Dtype::f32, slack_for(264));
    for (const auto& [begin, count] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, 208 - cut}}) {
      Product part = whole.op;
      part.a = part.a.row_range(begin, count), part.b = part.b.row_range(begin, count), part.c = c;
      run_on_warpgroups(part);
    }
    CHECK(same_bits(c, whole.c));
  }
}

TEST_CASE("a weight gradient has its bits on warpgroups beside one that can't go there", "[product][warpgroup]") {
  const Owned a = normal(208, 136, 1, Dtype::bf16, 8), b = normal(208, 264, 2, Dtype::bf16, 8);
  const Owned odd = normal(208, 260, 4, Dtype::bf16, 12);  // its rows end within a chunk of 16 bytes
  const auto gradient = [&](const Tensor& right, const Owned& c) {
    return Product{.a = a, .b = right, .c = c, .transpose_a = true, .accumulate = true};
  };
  const Owned alone = normal(136, 264, 3, Dtype::f32, 8);
  run_on_warpgroups(gradient(b, alone));
  for (const bool first : {true, false}) {
    const Owned beside = normal(136, 264, 3, Dtype::f32, 8), other = normal(136, 260, 5, Dtype::f32, 8);
    const Ops ops =
        first ? Ops{gradient(b, beside), gradient(odd, other)} : Ops{gradient(odd, other), gradient(b, beside)};
    run_on_warpgroups(ops);
    CHECK(same_bits(beside, alone));
  }
}
