// The root-mean-square norm on CUDA's kernels: the CPU's bits, but for the order in which dweight adds its rows.
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
const std::vector<Shape> kShapes = {{0, 8, 0},    {1, 1, 0},    {5, 16, 0},   {3, 37, 2},  {17, 132, 4},
                                    {2, 4100, 0}, {2, 5003, 1}, {35, 256, 0}, {9, 509, 1}, {18, 1024, 4}};

// dweight as the kernels add it: rows within blocks of 16, blocks within runs of 32, runs.
Owned weight_slope(const NormBackward& op) {
  Owned result(1, op.x.cols, op.dweight.dtype);
  for (std::int64_t d = 0; d < op.x.cols; ++d) {
    float total = 0, run = 0, block = 0;
    for (std::int64_t t = 0; t < op.x.rows; ++t) {
      const float scaled = static_cast<float>(element(op.x, t, d)) * static_cast<float>(element(op.inverse_rms, t, 0));
      block = block + static_cast<float>(element(op.dy, t, d)) * scaled;
      const bool last = t + 1 == op.x.rows;
      if (t % 16 == 15 || last) run = run + block, block = 0;
      if (t % 512 == 511 || last) total = total + run, run = 0;
    }
    result.set(0, d, static_cast<double>(total));
  }
  return result;
}

}  // namespace

TEST_CASE("norm's rows are the CPU's, many together or one", "[cuda][norm]") {
  for (const Shape& shape : kShapes)
    for (const Dtype type : kTypes)
      for (const Dtype other : kTypes) {
        const Owned x = normal(shape.rows, shape.cols, 1, type, shape.slack), weight = normal(1, shape.cols, 2, other),
                    y(shape.rows, shape.cols, other, shape.slack), inverse_rms(shape.rows, 1, Dtype::f32, 1);
        CHECK(like_cpu(Norm{x, weight, y, inverse_rms, 1e-5F}));
        CHECK((y.canaries_alive() && inverse_rms.canaries_alive()));
      }
  const Owned x = normal(2500, 12, 1), weight = normal(1, 12, 2), y(2500, 12, Dtype::bf16), inverse_rms(2500, 1);
  CHECK(like_cpu(Norm{x, weight, y, inverse_rms, 1e-5F}));
}

TEST_CASE("norm's slopes are the CPU's, dweight in the kernels' own order", "[cuda][norm]") {
  std::vector<Shape> shapes = kShapes;
  shapes.push_back({1100, 5, 0});
  for (const Shape& shape : shapes)
    for (const Dtype type : kTypes)
      for (const Dtype other : kTypes) {
        const Owned x = normal(shape.rows, shape.cols, 1, type, shape.slack), weight = normal(1, shape.cols, 2, other),
                    dy = normal(shape.rows, shape.cols, 3, other), dx(shape.rows, shape.cols, type, shape.slack),
                    r = normal(shape.rows, 1, 4), expected_dx(shape.rows, shape.cols, type, shape.slack),
                    dweight(1, shape.cols, other);
        for (const bool adds : {false, true}) {
          const Owned add = normal(adds ? shape.rows : 0, shape.cols, 5, other);
          NormBackward op{x, weight, r, dy, add, dx, dweight, 1e-5F};
          const Owned expected = weight_slope(op);
          run_op(op);
          CHECK(same_bits(dweight, expected));
          op.dx = expected_dx;
          run_on_cpu(op);
          CHECK(same_bits(dx, expected_dx));
        }
        CHECK(dx.canaries_alive());
      }
}

TEST_CASE("norm's slopes may stand where they came from", "[cuda][norm]") {
  const Owned x = normal(20, 40, 1), weight = normal(1, 40, 2), dy = normal(20, 40, 3), add = normal(20, 40, 4),
              r = normal(20, 1, 5), dx(20, 40), dweight(1, 40), again(1, 40);
  run_op(NormBackward{x, weight, r, dy, add, dx, dweight, 1e-5F});
  run_op(NormBackward{x, weight, r, dy, add, add, again, 1e-5F});
  CHECK((same_bits(add, dx) && same_bits(again, dweight)));
  run_op(NormBackward{x, weight, r, dy, {}, dx, dweight, 1e-5F});
  run_op(NormBackward{x, weight, r, dy, {}, dy, again, 1e-5F});
  CHECK((same_bits(dy, dx) && same_bits(again, dweight)));
}

TEST_CASE("a copy that follows norm's slopes is what it is alone, where it stands over an operand too",
          "[cuda][norm]") {
  for (int again = 0; again < 6; ++again) {  // blocks and threads run in another order
    const Owned x = normal(37, 72, 1), weight = normal(1, 72, 2), r = normal(37, 1, 3), dx(37, 72), dweight(1, 72),
                dy = normal(37, 72, 4, Dtype::bf16), expected_dx(37, 72), expected(37, 72, Dtype::bf16),
                copy(37, 72, Dtype::bf16, 4);
    run_op(NormBackward{x, weight, r, dy, {}, expected_dx, dweight, 1e-5F});
    run_op(Copy{expected_dx, expected});
    // Over x its row t stands where row t / 2 is read.
    const Tensor out = again % 2 == 1 ? Tensor{x.tensor().data, 37, 72, 72, Dtype::bf16} : copy.tensor();
    run_ops({NormBackward{x, weight, r, dy, {}, dx, dweight, 1e-5F}, Copy{dx, out}});
    CHECK((same_bits(dx, expected_dx) && same_bits(out, expected)));
    CHECK(copy.canaries_alive());
  }
}
