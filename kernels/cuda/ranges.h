// What a profiler (nsys, ncu) shows beside the kernels: a range for what is put on the stream together, named after its
// first segment, and within it one for each launch, named after its op. Costs a comparison where no profiler listens.
#pragma once

#include <cstddef>

#include "kernels/device.h"

namespace troupe::cuda {

// From here to the end of its life, on this thread.
class Range {
 public:
  Range(const SegmentKey& key, std::size_t segments);  // "backward of step 3, microbatch 2, layer 5; 4 together"
  explicit Range(const Op& op);                        // "Product"
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace troupe::cuda
