// What an op costs: floating-point operations and bytes to and from memory, from shapes alone.
// Nothing here reads a tensor's data.
#pragma once

#include "kernels/device.h"

namespace troupe {

struct Cost {
  double flops = 0;
  double bytes = 0;
  Cost& operator+=(const Cost& more) {
    flops += more.flops;
    bytes += more.bytes;
    return *this;
  }
  friend bool operator==(const Cost&, const Cost&) = default;
};

Cost cost(const Op& op);
Cost cost(const Segment& segment);

}  // namespace troupe
