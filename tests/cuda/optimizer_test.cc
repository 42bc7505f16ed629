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
