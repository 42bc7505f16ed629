// An op in parts, and threads that help each other with them: the bits are those of the op in one piece.
#include <atomic>
#include <thread>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/offer.h"
#include "kernels/cpu/parts.h"
#include "kernels/model/linear.h"
#include "tests/support/coded.h"
#include "tests/support/naive.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

// Runs the op whole into its output, then in parts, last first, into `out` which stands where `of` says.
template <typename SomeOp>
void expect_same_in_parts(const SomeOp& whole, Tensor SomeOp::*of, std::size_t parts_min) {
  cpu::Scratch scratch;
  cpu::run(Op{whole}, scratch);
  for (const std::int64_t count : {2, 3, 4, 7}) {
    SomeOp other = whole;
    const Owned out((whole.*of).rows, (whole.*of).cols, (whole.*of).dtype);
    other.*of = out;
    std::vector<Op> parts;
    cpu::cut(Op{other}, count, parts);
    CHECK((parts.size() >= parts_min && parts.size() <= static_cast<std::size_t>(count)));
    while (!parts.empty()) {
      cpu::run(parts.back(), scratch);
      parts.pop_back();
    }
    CHECK(same_bits(out, whole.*of));
    CHECK(out.canaries_alive());
  }
}

}  // namespace

TEST_CASE("a product in parts has the same bits", "[parts]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const int rows : {1, 3, 40}) {
      const Owned a = normal(rows, 256, 1, type), b = normal(544, 256, 2, type), bias = normal(1, 544, 3);
      const Owned add = normal(rows, 544, 4), c(rows, 544);
      expect_same_in_parts(Product{.a = a, .b = b, .c = c, .transpose_b = true, .bias = bias, .add = add}, &Product::c,
                           2);
      expect_same_in_parts(
          Product{
              .a = a, .b = b, .c = c, .transpose_b = true, .a_scaling = kActivationTiles, .b_scaling = kWeightBlocks},
          &Product::c, 2);
      const CodedWeight coded(b);
      expect_same_in_parts(linear_forward(true, a, coded.matrix(), c), &Product::c, 2);
      const Owned plain = normal(256, 700, 5, type), wide(rows, 700, type);
      expect_same_in_parts(Product{.a = a, .b = plain, .c = wide}, &Product::c, 2);
    }
}

TEST_CASE("a grouped product in parts has the same bits", "[parts]") {
  for (const bool transpose : {false, true}) {
    const Owned a = normal(5, 256, 1), c(5, 544);
    const Owned first = transpose ? normal(544, 256, 2) : normal(256, 544, 2);
    const Owned second = transpose ? normal(544, 256, 3) : normal(256, 544, 3);
    expect_same_in_parts(
        GroupedProduct{.a = a, .c = c, .b = {first, first, second}, .rows = {1, 0, 4}, .transpose_b = transpose},
        &GroupedProduct::c, 2);
  }
  const Owned a = normal(5, 256, 1, Dtype::bf16), c(5, 544);
  const CodedWeight first(normal(544, 256, 2)), second(normal(544, 256, 3));
  expect_same_in_parts(GroupedProduct{.a = a,
                                      .c = c,
                                      .b = {first.turned, first.turned, second.turned},
                                      .rows = {1, 0, 4},
                                      .a_scaling = kActivationTiles,
                                      .b_scaling = kWeightBlocks,
                                      .b_turned = {first.codes, first.codes, second.codes},
                                      .b_scales = {first.scales, first.scales, second.scales}},
                       &GroupedProduct::c, 2);
}

TEST_CASE("attention in parts has the same bits, by spans and by heads", "[parts]") {
  for (const int spans : {1, 9}) {
    std::vector<std::int32_t> table;
    for (int s = 0; s < spans; ++s) table.insert(table.end(), {s, 1, 300 * s, 290 + s});
    const Owned index = integers(spans, 4, table), q = normal(spans, 8 * 48, 1), k = normal(300 * spans, 4 * 64, 2);
    const Owned shared = normal(300 * spans, 16, 3), v = normal(300 * spans, 4 * 32, 4);
    const Owned out(spans, 8 * 32), row_max(spans, 8), row_scale(spans, 8);
    Attention op;
    op.spans = index, op.q = q, op.k = k, op.k_shared = shared, op.v = v;
    op.out = out, op.row_max = row_max, op.row_scale = row_scale;
    op.heads = 8, op.kv_heads = 4, op.own_dim = 32, op.shared_dim = 16, op.v_dim = 32;
    op.k_head_stride = 64, op.v_head_stride = 32, op.scale = 0.25F;
    expect_same_in_parts(op, &Attention::out, 2);
  }
}

TEST_CASE("what is small is not cut", "[parts]") {
  const Owned a = normal(1, 64, 1), b = normal(128, 64, 2), c(1, 128);
  std::vector<Op> parts;
  cpu::cut(Op{Product{.a = a, .b = b, .c = c, .transpose_b = true}}, 4, parts);
  cpu::cut(Op{Fill{c, 0}}, 4, parts);
  CHECK(parts.empty());
}

TEST_CASE("every part of an offer is run once, whoever helps", "[parts]") {
  constexpr int kOffers = 2000;
  cpu::Offer offer;
  std::atomic<bool> over = false;
  std::atomic<int> helped = 0;
  std::vector<std::thread> helpers;
  for (int h = 0; h < 2; ++h)
    helpers.emplace_back([&] {
      while (!over)
        if (offer.is_open())
          offer.help([&](const Op& part) {
            *std::get<Fill>(part).out.row<float>(0) += 1;
            ++helped;
          });
    });
  const Owned counts(kOffers, 5);
  cpu::Scratch scratch;
  cpu::run(Op{Fill{counts, 0}}, scratch);
  for (int i = 0; i < kOffers; ++i) {
    offer.parts().clear();
    for (int p = 0; p < 5; ++p) offer.parts().emplace_back(Fill{counts.tensor().row_range(i, 1).columns(p, 1), 1});
    offer.carry_out([](const Op& part) { *std::get<Fill>(part).out.row<float>(0) += 1; });
    for (int p = 0; p < 5; ++p) CHECK(counts.at(i, p) == 1);  // and nobody is still at it
  }
  over = true;
  for (std::thread& helper : helpers) helper.join();
}
