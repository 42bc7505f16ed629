// Attention of spans that have one query row each, as in decoding.
#pragma once

#include "kernels/cpu/kernels.h"

namespace troupe::cpu {

// False, and nothing was done: another span has more rows, or too many query heads share a key head.
// REQUIRES: the op's shapes were checked.
bool attend_single_rows(const Attention& op, Scratch& scratch);

}  // namespace troupe::cpu
