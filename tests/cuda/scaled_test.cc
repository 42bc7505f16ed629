// Products in FP8 on a GPU: codes and scales are the CPU's to the bit, and so are sums that tensor cores lose no bits of;
// an element depends on its row, its column and tiles of 128 along k, and on nothing else.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/model/linear.h"
#include "tests/cuda/beside_cpu.h"
#include "tests/support/coded.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

constexpr Dtype kHalf = Dtype::bf16;
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

// Codes and scales that differ from the law's.
int wrong_codes(const Tensor& x, const Scaling& scaling, bool down) {
  const NaiveTiles naive(x, scaling, down);
  const QuantizedThere there = quantize_there(x, scaling, down);
  const std::int64_t rows = down ? x.cols : x.rows, depth = down ? x.rows : x.cols, width = scaling.width;
  int wrong = 0;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t k = 0; k < depth; ++k) {
      const std::uint8_t code = there.codes[static_cast<std::size_t>(i * depth + k)];
      const auto scale = static_cast<std::size_t>(k / 128 * ((rows + width - 1) / width) + i / width);
      wrong += code != (down ? naive.code(k, i) : naive.code(i, k));
      wrong += there.scales[scale] != (down ? naive.scale(k, i) : naive.scale(i, k));
    }
  return wrong;
}

// The distance from the law's chains, as a share of their size: root mean squares of both.
double error_of(const Product& op) {
  const Grid expected = scaled_product(op, op.accumulate ? Grid{op.c} : Grid(op.c.rows, op.c.cols));
  run_op(op);
  double apart = 0, size = 0;
  for (std::int64_t i = 0; i < op.c.rows; ++i)
    for (std::int64_t j = 0; j < op.c.cols; ++j) {
      const double error = element(op.c, i, j) - expected(i, j);
      apart += error * error, size += expected(i, j) * expected(i, j);
    }
  return std::sqrt(apart / size);
}
// Fourteen bits a block of 32 and fresh sums every 128: 1.2e-4 of random operands. A sum that is off by that share falls on
// another side of a bfloat16's rounding once in some 30 times and then is off by 2^-8: 7e-4, and twice that among few.
double may_be_off(Dtype type) { return type == Dtype::f32 ? 2e-4 : 1.4e-3; }

// Whole numbers times a factor of each row's own, which is what its scale becomes: 448 stands where the other operand is 0.
Owned exact_rows(std::int64_t rows, std::int64_t depth, std::uint64_t seed, int large_at, int zero_at,
                 bool one_factor) {
  const Owned draw = normal(rows, depth, seed), factors = normal(rows, depth / 128 + 1, seed + 1);
  Owned x(rows, depth, kHalf);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t k = 0; k < depth; ++k) {
      const double factor =
          one_factor ? 0.375 : std::ldexp(1 + static_cast<int>(std::abs(factors.at(i, k / 128)) * 8) % 32, -9);
      const double number = k % 128 == large_at ? 448 : k % 128 == zero_at ? 0 : std::round(draw.at(i, k));
      x.set(i, k, number * factor);
    }
  return x;
}

GroupedProduct grouped(const Tensor& a, const Tensor& b, const Tensor& c, const RecycledVector<std::int32_t>& rows,
                       bool transpose_b) {
  GroupedProduct op{.a = a, .c = c, .b = {}, .rows = rows, .transpose_b = transpose_b};
  const std::int64_t height = b.rows / static_cast<std::int64_t>(rows.size());
  for (std::size_t r = 0; r < rows.size(); ++r)
    op.b.push_back(b.row_range(static_cast<std::int64_t>(r) * height, height));
  op.a_scaling = transpose_b ? kActivationTiles : kGradientTiles, op.b_scaling = kWeightBlocks;
  return op;
}

}  // namespace

TEST_CASE("a tensor's codes and scales on a GPU are the law's, whatever its shape, type and alignment", "[scaled]") {
  for (const Dtype type : {Dtype::f32, kHalf})
    for (const auto& [rows, cols, slack] :
         {std::tuple{1, 1, 0}, {3, 130, 5}, {129, 127, 1}, {260, 40, 8}, {70, 264, 8}, {300, 136, 0}})
      for (const Scaling& scaling : {kActivationTiles, kGradientTiles, kWeightBlocks})
        for (const bool down : {false, true}) {
          INFO(rows << " x " << cols << " width " << scaling.width << " down " << down);
          CHECK(wrong_codes(normal(rows, cols, 7, type, slack), scaling, down) == 0);
        }
}

TEST_CASE("on a GPU bfloat16 numbers of every size get the codes of their quotients", "[scaled]") {
  for (const float largest : {448.0F, 1.0F, 3.7F, 1e-4F, 3e38F, 1e-19F, 1e-30F, 1e-38F}) {
    const Owned tiles(512, 128, kHalf);
    for (std::int64_t i = 0; i < 512; ++i) {
      for (std::int64_t j = 0; j < 128; ++j) {
        const float value = from_bf16(static_cast<std::uint16_t>(i * 128 + j));
        tiles.tensor().row<std::uint16_t>(i)[j] = std::abs(value) <= largest ? round_to_bf16(value) : 0;
      }
      tiles.tensor().row<std::uint16_t>(i)[i % 128] = round_to_bf16(largest);
    }
    INFO("largest " << largest);
    CHECK(wrong_codes(tiles, kGradientTiles, false) == 0);
  }
}

TEST_CASE("on a GPU quotients of float32 numbers are rounded as a true division's", "[scaled]") {
  for (const float size : {1.0F, 1e-12F, 1e-36F}) {
    Owned x = normal(256, 256, 11);
    for (std::int64_t i = 0; i < 256; ++i)
      for (std::int64_t j = 0; j < 256; ++j) x.set(i, j, x.at(i, j) * static_cast<double>(size));
    for (const bool down : {false, true}) CHECK(wrong_codes(x, kGradientTiles, down) == 0);
  }
}

TEST_CASE("a scaled product that loses no bits on tensor cores has the CPU's", "[scaled]") {
  for (const auto& [m, n, depth] : {std::tuple{5, 24, 128}, {130, 200, 300}, {257, 129, 520}}) {
    INFO(m << " x " << n << " x " << depth);
    const Owned a = exact_rows(m, depth, 1, 3, 7, false), b = exact_rows(n, depth, 5, 7, 3, true), c = normal(m, n, 9);
    CHECK(like_cpu(linear_forward(true, a, b, c)));
    Owned a_down(depth, m, kHalf), b_down(depth, n, kHalf);
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t i = 0; i < m; ++i) a_down.set(k, i, a.at(i, k));
      for (std::int64_t j = 0; j < n; ++j) b_down.set(k, j, b.at(j, k));
    }
    CHECK(like_cpu(linear_input_gradient(true, a, b_down, c)));
    CHECK(like_cpu(linear_weight_gradient(true, a_down, b_down, c)));
  }
}

TEST_CASE("scaled products of a linear layer are the naive chains but for the bits that tensor cores lose",
          "[scaled]") {
  for (const Dtype type : {Dtype::f32, kHalf})
    for (const auto& [tokens, in, out] :
         {std::tuple{1, 1, 1}, {2, 130, 40}, {13, 300, 33}, {40, 96, 200}, {140, 257, 129}, {530, 24, 40}}) {
      INFO(tokens << " tokens, " << in << " to " << out);
      const Owned x = normal(tokens, in, 1, type, 3), w = normal(out, in, 2, type), dy = normal(tokens, out, 3, type);
      const Owned bias = normal(1, out, 4), add = normal(tokens, out, 5);
      const Owned y(tokens, out, type, 7), u(tokens, out), dx(tokens, in, type), dw = normal(out, in, 6);
      CHECK(error_of(linear_forward(true, x, w, y)) <= may_be_off(type));
      CHECK(error_of(linear_forward(true, x, w, u, bias, add)) <= may_be_off(Dtype::f32));
      CHECK(error_of(linear_forward(true, x, w, u, {}, add)) <= may_be_off(Dtype::f32));
      CHECK(error_of(linear_input_gradient(true, dy, w, dx)) <= may_be_off(type));
      CHECK(error_of(linear_weight_gradient(true, dy, x, dw)) <= may_be_off(Dtype::f32));
      CHECK(y.canaries_alive());
    }
}

TEST_CASE("on a GPU a row of a scaled product has the same bits alone or among any number of rows", "[scaled]") {
  const Owned x = normal(300, 200, 1, kHalf), w = normal(70, 200, 2, kHalf), y(300, 70);
  run_op(linear_forward(true, x, w, y));
  for (const auto& [begin, count] : {std::pair{0, 1}, {299, 1}, {17, 2}, {100, 130}}) {
    const Owned some(count, 70);
    run_op(linear_forward(true, x.tensor().row_range(begin, count), w, some));
    CHECK(same_bits(some, y.tensor().row_range(begin, count)));
  }
}

TEST_CASE("on a GPU an accumulating scaled product may be cut between tiles of tokens", "[scaled]") {
  const Owned dy = normal(300, 40, 1, kHalf), x = normal(300, 56, 2, kHalf), whole = normal(40, 56, 3);
  run_op(linear_weight_gradient(true, dy, x, whole));
  for (const std::int64_t cut : {128, 256}) {
    const Owned dw = normal(40, 56, 3);
    for (const auto& [begin, count] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, 300 - cut}})
      run_op(linear_weight_gradient(true, dy.tensor().row_range(begin, count), x.tensor().row_range(begin, count), dw));
    CHECK(same_bits(dw, whole));
  }
}

TEST_CASE("on a GPU rows of zeros behind a run change no bit of a scaled weight gradient", "[scaled]") {
  const Owned dy = normal(256, 40, 1, kHalf), x = normal(256, 56, 2, kHalf);
  run_op(Fill{dy.tensor().row_range(150, 106), 0});
  run_op(Fill{x.tensor().row_range(150, 106), 0});
  const Owned padded = normal(40, 56, 3), ragged = normal(40, 56, 3);
  run_op(linear_weight_gradient(true, dy, x, padded));
  run_op(linear_weight_gradient(true, dy.tensor().row_range(0, 150), x.tensor().row_range(0, 150), ragged));
  CHECK(same_bits(padded, ragged));
}

TEST_CASE("on a GPU an infinity or a NaN spoils its tile and no other", "[scaled]") {
  for (const float bad : {kInfinity, -kInfinity, kNaN}) {
    const Owned x = normal(3, 300, 1), w = normal(8, 300, 2), y(3, 8), healthy(3, 8);
    run_op(linear_forward(true, x, w, healthy));
    x.tensor().row<float>(1)[140] = bad;
    run_op(linear_forward(true, x, w, y));
    for (std::int64_t j = 0; j < 8; ++j)
      CHECK((std::isnan(y.at(1, j)) && y.at(0, j) == healthy.at(0, j) && y.at(2, j) == healthy.at(2, j)));
  }
}

TEST_CASE("a grouped scaled product has the bits of its products", "[scaled]") {
  RecycledVector<std::int32_t> rows;
  std::int64_t total = 0;
  for (int r = 0; r < 70; ++r) total += rows.emplace_back(r == 7 ? 150 : r % 3);
  for (const bool transpose_b : {true, false}) {
    const std::int64_t depth = 136, cols = 40, height = transpose_b ? cols : depth;
    const Owned a = normal(total, depth, 1, kHalf), b = normal(70 * height, transpose_b ? depth : cols, 2, kHalf);
    const Owned c(total, cols, kHalf), expected(total, cols, kHalf);
    run_op(grouped(a, b, c, rows, transpose_b));
    std::int64_t row = 0;
    for (std::size_t r = 0; r < rows.size(); row += rows[r++]) {
      if (rows[r] == 0) continue;
      Product one{.a = a.tensor().row_range(row, rows[r]),
                  .b = b.tensor().row_range(static_cast<std::int64_t>(r) * height, height),
                  .c = expected.tensor().row_range(row, rows[r]),
                  .transpose_b = transpose_b};
      one.a_scaling = transpose_b ? kActivationTiles : kGradientTiles, one.b_scaling = kWeightBlocks;
      run_op(one);
    }
    CHECK(same_bits(c, expected));
  }
}

TEST_CASE("weights are quantized on a GPU as on the CPU, several in one launch, and digested", "[scaled]") {
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{256, 384}, {1, 16}, {129, 127}, {300, 40}, {16, 264}};
  for (const Dtype type : {Dtype::f32, kHalf}) {
    std::vector<Owned> weights;
    std::vector<CodedWeight> here, there;
    Ops together;
    for (const auto& [rows, cols] : shapes) {
      weights.push_back(normal(rows, cols, 3, type));
      here.emplace_back(weights.back()), there.emplace_back(weights.back());
      run_on_cpu(here.back().op);
      for (const Owned* const one : {&there.back().codes, &there.back().turned})
        std::memset(one->tensor().data, 0xC5, static_cast<std::size_t>(one->tensor().rows * one->tensor().stride));
      together.push_back(there.back().op);
    }
    run_ops(together);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      INFO(weights[i].tensor().rows << " x " << weights[i].tensor().cols);
      const auto is = digested(there[i].op), must_be = digested(here[i].op);
      for (std::size_t tensor = 0; tensor < 4; ++tensor) CHECK(same_bits(is[tensor], must_be[tensor]));
      Quantize noting = there[i].op;
      const Owned digests = integers(4, 4, std::vector<std::int32_t>(16));
      noting.digests = digests;
      CHECK(like_cpu(noting));
    }
  }
}

TEST_CASE("on a GPU a product that reads a weight's codes has the bits of one that quantizes it", "[scaled]") {
  for (const auto& [tokens, in, out] : {std::tuple{2, 130, 40}, {13, 304, 33}, {140, 257, 136}, {260, 24, 40}}) {
    INFO(tokens << " tokens, " << in << " to " << out);
    const Owned x = normal(tokens, in, 1, kHalf), w = normal(out, in, 2, kHalf), dy = normal(tokens, out, 3, kHalf);
    const Owned y(tokens, out, kHalf), expected_y(tokens, out, kHalf), dx(tokens, in), expected_dx(tokens, in);
    const CodedWeight coded(w);
    run_op(linear_forward(true, x, w, expected_y));
    run_op(linear_forward(true, x, coded.matrix(), y));
    CHECK(same_bits(y, expected_y));
    run_op(linear_input_gradient(true, dy, w, expected_dx));
    run_op(linear_input_gradient(true, dy, coded.matrix(), dx));
    CHECK(same_bits(dx, expected_dx));
    GroupedProduct grouped_plain{.a = x, .c = expected_y, .b = {}, .rows = {}, .transpose_b = true};
    grouped_plain.a_scaling = kActivationTiles, grouped_plain.b_scaling = kWeightBlocks;
    for (const int rows : {tokens / 2, 0, tokens - tokens / 2})
      grouped_plain.b.push_back(w), grouped_plain.rows.push_back(rows);
    GroupedProduct of_codes = grouped_plain;
    const Product one = linear_forward(true, x, coded.matrix(), y);
    of_codes.c = y, of_codes.transpose_b = one.transpose_b;
    for (Tensor& b : of_codes.b)
      b = one.b, of_codes.b_turned.push_back(one.b_turned), of_codes.b_scales.push_back(one.b_scales);
    run_op(Fill{y, 0});
    run_op(grouped_plain);
    run_op(of_codes);
    CHECK(same_bits(y, expected_y));
  }
}

TEST_CASE("scaled weight gradients that go together add what each would alone, in their order", "[scaled]") {
  const std::int64_t rows[] = {5, 128, 70, 1, 300, 33};
  std::vector<Owned> a, b;
  for (std::uint64_t m = 0; m < 6; ++m) {
    a.push_back(normal(rows[m], 136, 2 * m, kHalf));
    b.push_back(normal(rows[m], 72, 2 * m + 1, kHalf));
  }
  // Of each op: which rows, and to which sum; sum 0 comes again behind others.
  const std::pair<std::size_t, std::size_t> plan[] = {{0, 0}, {1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 2}, {2, 0}, {1, 3}};
  const auto sums = [] {
    std::vector<Owned> c;
    for (std::uint64_t s = 0; s < 4; ++s) c.push_back(s == 3 ? normal(136, 24, 50 + s) : normal(136, 72, 50 + s));
    return c;
  };
  const auto gradient = [&](const std::pair<std::size_t, std::size_t>& op, const std::vector<Owned>& c) {
    const Tensor& sum = c[op.second];
    return linear_weight_gradient(true, a[op.first], b[op.first].tensor().columns(0, sum.cols), sum);
  };
  const std::vector<Owned> alone = sums();
  for (const auto& op : plan) run_op(gradient(op, alone));
  for (int again = 0; again < 3; ++again) {
    const std::vector<Owned> together = sums();
    Ops ops;
    for (const auto& op : plan) ops.push_back(gradient(op, together));
    run_ops(ops);
    for (std::size_t s = 0; s < alone.size(); ++s) CHECK(same_bits(together[s], alone[s]));
  }
}
