// c[rows of run r] = a[rows of run r] b[r], or b[r]^T: one product after another, c assigned.
#include "kernels/grouped_product.h"

#include <numeric>

#include "kernels/cpu/kernels.h"

namespace troupe::cpu {

void run(const GroupedProduct& op, Scratch& scratch) {
  CHECK(op.rows.size() == op.b.size(), "grouped product: {} runs and {} matrices", op.rows.size(), op.b.size());
  const std::int64_t rows = std::accumulate(op.rows.begin(), op.rows.end(), std::int64_t{0});
  CHECK(op.a.rows == rows && op.c.rows == rows, "grouped product: runs of {} rows, a has {}, c {}", rows, op.a.rows,
        op.c.rows);
  each_product(op, [&](const Product& one) {
    scratch.reset();  // nothing of the run before it is needed
    run(one, scratch);
  });
}

}  // namespace troupe::cpu
