#include "kernels/cpu/kernels.h"
#include "tests/support/run_op.h"

namespace troupe::test {

void run_op(const Op& op) {
  cpu::Scratch scratch;
  cpu::run(op, scratch);
}

void run_ops(const Ops& ops) {
  for (const Op& op : ops) run_op(op);
}

bool on_cpu() { return true; }

}  // namespace troupe::test
