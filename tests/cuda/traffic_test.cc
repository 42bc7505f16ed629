// The ops that mostly move memory, on CUDA's kernels: bit for bit the CPU's, in every type they take, at awkward shapes,
// with gaps between rows and views that begin anywhere. Each runs under several orders of threads.
#include <cstring>

#include "tests/cuda/beside_cpu.h"
#include "tests/support/catch.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

using namespace troupe;
using namespace troupe::test;

namespace {

struct Shape {
  std::int64_t rows, cols, slack, offset;  // offset: columns before the view begins
};
// One quad, ragged quads, gaps, unaligned beginnings, several chunks a row, many short rows, none at all.
const std::vector<Shape> kShapes = {{1, 1, 0, 0},  {5, 4, 0, 0},    {3, 7, 2, 1},     {9, 64, 8, 0},  {4, 130, 6, 4},
                                    {2, 96, 5, 0}, {1, 4500, 0, 0}, {2, 4612, 12, 8}, {40, 12, 0, 0}, {0, 8, 0, 0}};

// A view of normal numbers inside a wider tensor.
class Viewed {
 public:
  Viewed(const Shape& shape, std::uint64_t seed, Dtype dtype)
      : whole_(normal(shape.rows, shape.cols + shape.offset, seed, dtype, shape.slack)),
        view_(whole_.tensor().columns(shape.offset, shape.cols)) {}
  operator const Tensor&() const { return view_; }  // NOLINT: it is one
  const Tensor& tensor() const { return view_; }
  bool canaries_alive() const { return whole_.canaries_alive(); }

 private:
  Owned whole_;
  Tensor view_;
};

Owned numbers(std::int64_t count, std::int64_t bound, std::uint64_t seed, std::int64_t lowest = 0) {
  Owned drawn(count, 1, Dtype::i32);
  for (std::int64_t i = 0; i < count; ++i)
    *drawn.tensor().row<std::int32_t>(i) = static_cast<std::int32_t>(
        lowest + static_cast<std::int64_t>((seed * 7919 + static_cast<std::uint64_t>(i * i + 3 * i) * 104729) %
                                           static_cast<std::uint64_t>(bound - lowest)));
  return drawn;
}

}  // namespace

TEST_CASE("copies keep bits of one type and round where types differ", "[cuda][traffic]") {
  for (const Shape& shape : kShapes)
    for (const Dtype from : kTypes)
      for (const Dtype to : kTypes) {
        const Viewed source(shape, 1, from), out(shape, 2, to);
        CHECK(like_cpu(Copy{source, out}));
        CHECK(out.canaries_alive());
      }
  const Owned words = numbers(35, 1000, 1), copied(35, 1, Dtype::i32, 2), wide(3, 5, Dtype::f64, 1),
              same(3, 5, Dtype::f64, 2);
  run_op(Fill{wide, 0.3F});
  CHECK((like_cpu(Copy{words, copied}) && like_cpu(Copy{wide, same})));
}

TEST_CASE("a copy keeps the bits of what isn't a number", "[cuda][traffic]") {
  const Owned source(2, 5, Dtype::bf16, 1), out(2, 5, Dtype::bf16);
  for (std::int64_t i = 0; i < 10; ++i)
    source.tensor().row<std::uint16_t>(i / 5)[i % 5] = static_cast<std::uint16_t>(0x7F81 + 0x1111 * (i % 3));
  CHECK(like_cpu(Copy{source, out}));
}

TEST_CASE("fills, sums and scaled rows are the CPU's", "[cuda][traffic]") {
  for (const Shape& shape : kShapes)
    for (const Dtype first : kTypes)
      for (const Dtype last : kTypes) {
        const Viewed a(shape, 1, first), b(shape, 2, last), out(shape, 3, last), scaled(shape, 4, first);
        const Owned scale = normal(shape.rows, 1, 5);
        CHECK(like_cpu(Add{a, b, out}));
        CHECK(like_cpu(Add{a, b, a}));
        CHECK(like_cpu(ScaleRows{b, scale, scaled}));
        CHECK(like_cpu(Fill{out, 0.3F}));
        CHECK((out.canaries_alive() && a.canaries_alive() && scaled.canaries_alive()));
      }
  for (const Dtype type : {Dtype::i32, Dtype::f64}) {
    const Owned out(3, 7, type, 2);
    CHECK(like_cpu(Fill{out, -3.75F}));
    CHECK(out.canaries_alive());
  }
}

TEST_CASE("rows are summed from the first to the last", "[cuda][traffic]") {
  for (const Shape& shape : {Shape{1, 1, 0, 0}, {0, 5, 0, 0}, {300, 37, 3, 1}, {129, 64, 0, 0}, {128, 33, 7, 4}})
    for (const Dtype type : kTypes)
      for (const bool accumulate : {false, true}) {
        const Viewed x(shape, 1, type);
        const Owned out = normal(1, shape.cols, 2);
        CHECK(like_cpu(SumRows{x, out, accumulate}));
      }
}

TEST_CASE("gathered, scattered and looked-up rows are the CPU's", "[cuda][traffic]") {
  for (const Shape& shape : kShapes)
    for (const Dtype from : kTypes)
      for (const Dtype to : kTypes) {
        Shape wide = shape;
        wide.rows = shape.rows + 6;
        const Viewed many(wide, 1, from), few(shape, 2, to), all(wide, 3, from);
        Owned index = numbers(shape.rows, wide.rows, 4), ids = numbers(shape.rows, wide.rows, 5, -2);
        CHECK(like_cpu(Gather{many, index, few}));
        CHECK(like_cpu(Embedding{ids, many, few}));
        for (std::int64_t j = 0; j < shape.rows; ++j) index.set(j, 0, static_cast<double>(wide.rows - 1 - j));
        CHECK(like_cpu(Scatter{few, index, all}));
        CHECK((few.canaries_alive() && all.canaries_alive()));
      }
  const Owned source = numbers(12, 99, 1), index = numbers(5, 12, 2), out(5, 1, Dtype::i32);
  CHECK(like_cpu(Gather{source, index, out}));
}

TEST_CASE("combine finds each slot's row in its piece and adds in slot order", "[cuda][traffic]") {
  for (const Shape& shape : kShapes)
    for (const Dtype type : kTypes)
      for (const std::int64_t slots : {1, 3, 11}) {
        RecycledVector<Tensor> pieces;
        std::vector<Viewed> owned;
        std::int64_t rows = 0;
        for (const std::int64_t size : {2, 0, 5, 1, 0}) {
          owned.emplace_back(Shape{size, shape.cols, shape.slack, shape.offset}, static_cast<std::uint64_t>(rows),
                             rows % 2 == 0 ? Dtype::bf16 : type);
          pieces.push_back(owned.back().tensor());
          rows += size;
        }
        const Owned position(shape.rows, slots, Dtype::i32, 1), weight = normal(shape.rows, slots, 3, Dtype::f32, 2);
        for (std::int64_t i = 0; i < shape.rows * slots; ++i)
          position.tensor().row<std::int32_t>(i / slots)[i % slots] = static_cast<std::int32_t>(i * 5 % rows);
        const Viewed add0(shape, 4, Dtype::f32), add1(shape, 5, type), out(shape, 6, type);
        CHECK(like_cpu(Combine{pieces, position, weight, add0, add1, out}));
        CHECK(like_cpu(Combine{pieces, position, {}, {}, add1, out}));
        CHECK(like_cpu(Combine{pieces, position, weight, add0, {}, add0}));
      }
}

TEST_CASE("combine takes more pieces than travel with a launch", "[cuda][traffic]") {
  const Owned all = normal(150, 36, 1), out(40, 36), position(40, 4, Dtype::i32);
  RecycledVector<Tensor> pieces;
  for (std::int64_t i = 0; i < 150; ++i) pieces.push_back(all.tensor().row_range(149 - i, 1));
  for (std::int64_t i = 0; i < 160; ++i)
    position.tensor().row<std::int32_t>(i / 4)[i % 4] = static_cast<std::int32_t>(i * 61 % 150);
  CHECK(like_cpu(Combine{pieces, position, {}, {}, {}, out}));
}

TEST_CASE("rope turns whole quads and single pairs like the CPU", "[cuda][traffic]") {
  struct Heads {
    int heads, stride, offset, dim;
    std::int64_t cols, slack;
  };
  for (const Heads& h : {Heads{3, 16, 4, 8, 52, 0}, {2, 9, 3, 6, 21, 1}, {40, 64, 0, 64, 2560, 4}, {1, 0, 0, 2, 2, 0}})
    for (const Dtype type : kTypes)
      for (const bool interleaved : {true, false})
        for (const bool inverse : {true, false}) {
          const Owned x = normal(5, h.cols, 1, type, h.slack), cosine = normal(7, h.dim / 2, 2),
                      sine = normal(7, h.dim / 2, 3), positions = numbers(5, 7, 4);
          CHECK(like_cpu(Rope{x, positions, cosine, sine, h.heads, h.stride, h.offset, h.dim, interleaved, inverse}));
          CHECK(x.canaries_alive());
        }
}

TEST_CASE("rotations that go together are what each is alone, and those of the same columns take turns",
          "[cuda][traffic]") {
  for (const bool interleaved : {true, false})
    for (const std::int64_t gap : {48, 40}) {
      const Owned x = normal(9, 80, 1, Dtype::bf16), expected = normal(9, 80, 1, Dtype::bf16), cosine = normal(7, 8, 2),
                  sine = normal(7, 8, 3), positions = numbers(9, 7, 4);
      const auto turns = [&](const Owned& all) {
        const Tensor left = all.tensor().columns(0, 48), right = all.tensor().columns(gap, 24);
        return Ops{Rope{left, positions, cosine, sine, 2, 24, 8, 16, interleaved, false},
                   Rope{right, positions, cosine, sine, 1, 0, 0, 16, interleaved, false},
                   Rope{left, positions, cosine, sine, 2, 24, 8, 16, interleaved, true}};
      };
      run_ops(turns(x));
      for (const Op& op : turns(expected)) run_on_cpu(op);
      CHECK(same_bits(x, expected));
    }
}

TEST_CASE("swiglu and its slopes are the CPU's, dots folded in lanes", "[cuda][traffic]") {
  for (const Shape& shape : kShapes)
    for (const Dtype type : kTypes)
      for (const Dtype other : kTypes) {
        Shape both = shape;
        both.cols = 2 * shape.cols;
        const Viewed gate_up(both, 1, type), dh(shape, 2, other), h(shape, 3, other), slopes(both, 4, other);
        const Owned scale = normal(shape.rows, 1, 5), dots(shape.rows, 1, Dtype::f32, 1);
        CHECK(like_cpu(SwiGlu{gate_up, h}));
        CHECK(like_cpu(SwiGluBackward{gate_up, dh, slopes, {}, {}}));
        CHECK(like_cpu(SwiGluBackward{gate_up, dh, slopes, scale, dots}));
        CHECK(like_cpu(SwiGluBackward{gate_up, dh, gate_up, {}, dots}));
        CHECK((h.canaries_alive() && slopes.canaries_alive() && dots.canaries_alive()));
      }
}

TEST_CASE("an embedding's gradient adds many rows of one token in their order", "[cuda][traffic]") {
  for (const std::int64_t rows : {0, 1, 37, 300, 1300})
    for (const std::int64_t vocabulary : {1, 3, 200})
      for (const Dtype type : kTypes) {
        const Owned ids = numbers(rows, vocabulary, 9, -1), dx = normal(rows, 9, 1, type, 3),
                    dtable = normal(vocabulary, 9, 2, Dtype::f32, 3);
        CHECK(like_cpu(EmbeddingGradient{ids, dx, dtable}));
        CHECK(dtable.canaries_alive());
      }
  const Owned ids = numbers(70, 5, 9), dx = normal(70, 260, 1), dtable = normal(5, 260, 2);
  CHECK(like_cpu(EmbeddingGradient{ids, dx, dtable}));
}
