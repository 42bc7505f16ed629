// The products that a grouped one is made of.
#pragma once

#include "kernels/op.h"

namespace troupe {

// Calls visit(Product) for each run that has rows.
template <typename Visit>
void each_product(const GroupedProduct& op, Visit visit) {
  std::int64_t row = 0;
  for (std::size_t r = 0; r < op.rows.size(); ++r) {
    const std::int64_t rows = op.rows[r];
    if (rows > 0)
      visit(Product{.a = op.a.row_range(row, rows),
                    .b = op.b[r],
                    .c = op.c.row_range(row, rows),
                    .transpose_b = op.transpose_b,
                    .a_scaling = op.a_scaling,
                    .b_scaling = op.b_scaling,
                    .b_turned = op.b_turned.empty() ? Tensor{} : op.b_turned[r],
                    .b_scales = op.b_scales.empty() ? Tensor{} : op.b_scales[r]});
    row += rows;
  }
}

}  // namespace troupe
