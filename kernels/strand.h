// Segments that run together: the order of their ops. Those of strands: one that visits each sum once. Others are
// independent, and go in turn.
// The law: ops that add to the same place stay in the order of their segments, so no bit depends on what ran together.
#pragma once

#include <vector>

#include "kernels/device.h"

namespace troupe {

// The ops of all segments. Where every op adds to a sum, those of one sum stand together, sums in the order in which they
// first appear: an accumulator then travels from memory once for all of them. Otherwise segment after segment.
// REQUIRES: an op that adds reads no sum of another; `out` is empty and lives no longer than the segments.
void ops_by_sum(const std::vector<Segment>& segments, std::vector<const Op*>& out);

// The first op of each segment, then the second of each, ...: alike, they follow each other, and may share a launch.
// REQUIRES: no segment touches what another one writes.
void ops_in_turn(const std::vector<Segment>& segments, std::vector<const Op*>& out);

}  // namespace troupe
