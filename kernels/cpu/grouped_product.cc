// c[rows of run r] = a[rows of run r] b[r], or b[r]^T: one product after another, c assigned.
#include "kernels/grouped_product.h"

#include "kernels/cpu/kernels.h"

namespace troupe::cpu {

void run(const GroupedProduct& op, Scratch& scratch) {
  each_product(op, [&](const Product& one) {
    scratch.reset();  // nothing of the run before it is needed
    run(one, scratch);
  });
}

}  // namespace troupe::cpu
