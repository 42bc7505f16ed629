// What the owner of weights runs, on CUDA's kernels: updates, norms, digests and first values, bit for bit the CPU's.
#include <bit>
#include <cmath>

#include "kernels/base/random.h"
#include "tests/cuda/beside_cpu.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

using namespace troupe;
using namespace troupe::test;

namespace {

struct Shape {
  std::int64_t rows, cols, slack;
};
const std::vector<Shape> kShapes = {{0, 8, 0},  {1, 1, 0},    {1, 6, 0},     {7, 13, 1},
                                    {5, 64, 4}, {3, 2060, 0}, {2, 2060, 20}, {1, 9001, 0}};

}  // namespace

TEST_CASE("adamw changes every element as the CPU does, and digests what it wrote", "[cuda][optimizer]") {
  for (const Shape& shape : kShapes)
    for (const bool digested : {false, true})
      for (const bool copied : {false, true}) {
        const auto [rows, cols, slack] = shape;
        const Owned p = normal(rows, cols, 1, Dtype::f32, slack), g = normal(rows, cols, 2, Dtype::f32, slack),
                    m = normal(rows, cols, 3, Dtype::f32, slack), v = normal(rows, cols, 4, Dtype::f32, slack),
                    copy(copied ? rows : 0, cols, digested || slack == 1 ? Dtype::bf16 : Dtype::f32, slack),
                    digest(digested ? 1 : 0, 4, Dtype::i32);
        for (std::int64_t i = 0; i < rows * cols; ++i)
          v.tensor().row<float>(i / cols)[i % cols] = std::abs(v.tensor().row<float>(i / cols)[i % cols]);
        CHECK(like_cpu(AdamW{.parameter = p,
                             .gradient = g,
                             .m = m,
                             .v = v,
                             .copy = copy,
                             .digest = digest,
                             .lr = 3e-3F,
                             .weight_decay = 0.1F,
                             .bias1 = 0.1F,
                             .bias2 = 0.05F,
                             .clip_scale = 0.7F,
                             .first = (std::uint64_t{1} << 33) + 5}));
        CHECK((p.canaries_alive() && m.canaries_alive() && v.canaries_alive() && copy.canaries_alive()));
      }
}

TEST_CASE("digests are the CPU's, of parts and of a whole", "[cuda][optimizer]") {
  for (const Shape& shape : kShapes)
    for (const Dtype type : kTypes)
      for (const bool copied : {false, true}) {
        const Owned x = normal(shape.rows, shape.cols, 1, type, shape.slack),
                    copy = normal(copied ? shape.rows : 0, shape.cols, 2, Dtype::bf16, 1), out(1, 4, Dtype::i32);
        CHECK(like_cpu(Digest{x, copy, out, 77}));
      }
}

TEST_CASE("sums of squares are the CPU's in every type and at every end of a block", "[cuda][optimizer]") {
  std::vector<Shape> shapes = kShapes;
  shapes.insert(shapes.end(), {{1, 4096, 0}, {1, 4097, 0}, {17, 4096, 0}, {70, 1000, 0}, {30, 1000, 3}});
  for (const Shape& shape : shapes)
    for (const Dtype type : kTypes) {
      const Owned x = normal(shape.rows, shape.cols, 1, type, shape.slack), out(1, 1, Dtype::f64),
                  bits(1, 1, Dtype::i32);
      CHECK(like_cpu(SumSquares{x, out, bits}));
      if (shape.cols > 8) CHECK(like_cpu(SumSquares{x.tensor().columns(1, shape.cols - 1), out, bits}));
    }
}

TEST_CASE("first values are the CPU's but for the last bit of a normal number", "[cuda][optimizer]") {
  for (const Shape& shape : kShapes)
    for (const Dtype type : kTypes) {
      const Owned out(shape.rows, shape.cols, type, shape.slack);
      CHECK(like_cpu(Initialize{out, 5, 0.25F, 0, 3}));
      run_op(Initialize{out, 5, 0.25F, 0.5F, (std::uint64_t{1} << 32) - 4});
      for (std::int64_t i = 0; i < shape.rows * shape.cols; ++i) {
        const float drawn = random_normal(5, (std::uint64_t{1} << 32) - 4 + static_cast<std::uint64_t>(i));
        bool found = false;
        for (const float n : {drawn, std::nextafter(drawn, -10.0F), std::nextafter(drawn, 10.0F)}) {
          const float value = 0.25F + 0.5F * n;
          const double stored = static_cast<double>(type == Dtype::f32 ? value : from_bf16(round_to_bf16(value)));
          found = found || out.at(i / shape.cols, i % shape.cols) == stored;
        }
        REQUIRE(found);
      }
      CHECK(out.canaries_alive());
    }
}

namespace {

// What the ops leave in `results` on the CPU, where they run one by one, and here, where they may go together.
template <typename MakeOps, typename Make>
void same_together(MakeOps make_ops, Make make_tensors) {
  const std::vector<Owned> expected = make_tensors();
  for (const Op& op : make_ops(expected)) run_on_cpu(op);
  for (int order = 0; order < 2; ++order) {
    const std::vector<Owned> actual = make_tensors();
    run_ops(make_ops(actual));
    for (std::size_t i = 0; i < actual.size(); ++i) {
      INFO("tensor " << i);
      CHECK(same_bits(actual[i], expected[i]));
      CHECK(actual[i].canaries_alive());
    }
  }
}

constexpr std::int64_t kWidths[] = {4, 2048, 12, 2052, 1, 7, 5000, 64};

}  // namespace

TEST_CASE("updates that go together are what each is alone, an element twice in turn", "[cuda][optimizer]") {
  const std::int64_t all = 40000;
  for (const bool digested : {false, true})
    same_together(
        [&](const std::vector<Owned>& x) {
          Ops ops;
          std::int64_t at = 0;
          for (int i = 0; i < 70; ++i) {
            const std::int64_t width = i < 60 ? kWidths[i % 4] : kWidths[i % 8];
            if (at + width > all || i == 65) at = 0;  // from the beginning again
            const auto part = [&](std::size_t of) { return x[of].tensor().columns(at, width); };
            AdamW op{.parameter = part(0), .gradient = part(1), .m = part(2), .v = part(3), .copy = part(4)};
            if (digested) op.digest = x[5].tensor().row_range(i, 1);
            op.lr = 3e-3F, op.weight_decay = i % 3 == 0 ? 0.1F : 0.0F, op.first = static_cast<std::uint64_t>(at);
            ops.push_back(op);
            at += width;
          }
          return ops;
        },
        [&] {
          std::vector<Owned> x;
          for (std::uint64_t i = 0; i < 4; ++i) x.push_back(normal(1, all, i));
          for (std::int64_t i = 0; i < all; ++i) x[3].set(0, i, std::abs(x[3].at(0, i)));
          x.push_back(normal(1, all, 4, Dtype::bf16));
          x.push_back(Owned(70, 4, Dtype::i32));
          return x;
        });
}

TEST_CASE("what is filled together is what is filled one by one, with two values in turn", "[cuda][optimizer]") {
  same_together(
      [&](const std::vector<Owned>& x) {
        Ops ops;
        for (int i = 0; i < 200; ++i)
          ops.push_back(Fill{x[0].tensor().columns(i % 7 * 500, kWidths[i % 8]), i % 50 < 45 ? 0.0F : 2.5F});
        return ops;
      },
      [&] {
        std::vector<Owned> x;
        x.push_back(normal(1, 9000, 1));
        return x;
      });
}

TEST_CASE("additions that go together give what they give one by one, of sums of sums too", "[cuda][optimizer]") {
  same_together(
      [&](const std::vector<Owned>& x) {
        Ops ops;
        const auto part = [&](int of, std::int64_t at) {
          return x[0].tensor().columns(of * 10000 + at, kWidths[at % 4]);
        };
        for (const auto& [a, b] : {std::pair{0, 2}, {1, 3}, {0, 1}, {3, 0}, {2, 1}, {1, 0}})
          for (std::int64_t at = 0; at < 9; ++at)
            ops.push_back(Add{part(a, at * 1000), part(b, at * 1000), part(at == 8 ? b : a, at * 1000)});
        return ops;
      },
      [&] {
        std::vector<Owned> x;
        x.push_back(normal(1, 40000, 1));
        return x;
      });
}

TEST_CASE("sums of squares that go together are what each is alone", "[cuda][optimizer]") {
  const std::int64_t widths[] = {4096, 4, 140000, 5000, 1, 0, 131072, 4100};
  same_together(
      [&](const std::vector<Owned>& x) {
        Ops ops;
        for (std::int64_t i = 0; i < 120; ++i) {
          const std::int64_t place = i == 60 ? 59 : i;  // one result twice: the last stays
          ops.push_back(SumSquares{x[0].tensor().columns(i * 8, widths[i < 100 && i % 8 == 2 ? 3 : i % 8]),
                                   x[1].tensor().row_range(place, 1), x[2].tensor().row_range(place, 1)});
        }
        return ops;
      },
      [&] {
        std::vector<Owned> x;
        x.push_back(normal(1, 142000, 1));
        x.push_back(Owned(120, 1, Dtype::f64));
        x.push_back(Owned(120, 1, Dtype::i32));
        return x;
      });
}
