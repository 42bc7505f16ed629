// OpProfile: how long the ops of a device took, by kind, phase and width; ops that differ in their number of rows only are
// one entry. Measured only where somebody asks (`troupe profile`).
#pragma once

#include <compare>
#include <map>
#include <string>

#include "kernels/cost.h"

namespace troupe {

struct OpKey {
  std::size_t kind = 0;  // index in Op
  SegmentClass phase = SegmentClass::forward;
  // A product's inner dimension (0: no product) and the columns of what is written; of a weight gradient its shape.
  std::int64_t depth = 0, cols = 0;
  friend auto operator<=>(const OpKey&, const OpKey&) = default;
};

struct OpTime {
  std::int64_t count = 0, rows = 0, ns = 0;
  Cost cost;
};

class OpProfile {
 public:
  void add(SegmentClass phase, const Op& op, std::int64_t ns);
  void add(const OpProfile& more);
  void clear() { times_.clear(); }
  const std::map<OpKey, OpTime>& times() const { return times_; }

 private:
  std::map<OpKey, OpTime> times_;
};

const char* op_name(std::size_t kind);  // of Op's alternatives
const char* to_string(SegmentClass phase);

}  // namespace troupe
