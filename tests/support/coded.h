// A weight with its codes, both ways round.
#pragma once

#include "kernels/model/matrix.h"
#include "kernels/tiles.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

namespace troupe::test {

struct CodedWeight {
  explicit CodedWeight(const Tensor& weight)
      : codes(codes_like(weight.rows, weight.cols)),
        scales(tiles_count(weight.cols, kScaledDepth), tiles_count(weight.rows, kScaledDepth)),
        turned(codes_like(weight.cols, weight.rows)),
        turned_scales(tiles_count(weight.rows, kScaledDepth), tiles_count(weight.cols, kScaledDepth)),
        op{.x = weight, .codes = codes, .scales = scales, .turned = turned, .turned_scales = turned_scales} {
    run_op(op);
  }
  Matrix matrix() const { return {op.x, {codes, scales}, {turned, turned_scales}}; }

  static Owned codes_like(std::int64_t rows, std::int64_t cols) {
    return {rows, cols, Dtype::e4m3, (cols + 15) / 16 * 16 - cols};
  }
  Owned codes, scales, turned, turned_scales;
  Quantize op;
};

}  // namespace troupe::test
