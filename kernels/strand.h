// Segments of a strand that run together: their ops in an order that visits each sum once.
// The law: ops that add to the same place stay in the order of their segments, so no bit depends on what ran together.
#pragma once

#include <vector>

#include "kernels/device.h"

namespace troupe {

// The ops of all segments. Where every op adds to a sum, those of one sum stand together, sums in the order in which they
// first appear: an accumulator then travels from memory once for all of them. Otherwise segment after segment.
// REQUIRES: an op that adds reads no sum of another; `out` is empty and lives no longer than the segments.
void ops_by_sum(const std::vector<Segment>& segments, std::vector<const Op*>& out);

}  // namespace troupe
