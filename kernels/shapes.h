// What every device refuses: an op whose operands don't fit together, by shape and type. A CHECK that names the op and
// says what it must be.
// Nothing here reads a tensor's data, wherever that is: an index beyond its table is the device's own affair.
#pragma once

#include "kernels/op.h"

namespace troupe {

void check(const Op& op);

}  // namespace troupe
