// An op as independent parts: run in any order, on any threads, they write what the op would, bit for bit. Columns of a
// product, grouped or not, and heads or spans of an attention; no sum is ever cut.
#pragma once

#include <vector>

#include "kernels/op.h"

namespace troupe::cpu {

// Fills `parts` with at most `count`; leaves it empty when the op is too small to be worth it, or of another kind.
// The parts hold what the op holds: no memory of their own.
void cut(const Op& op, std::int64_t count, std::vector<Op>& parts);

}  // namespace troupe::cpu
