// For builds without NVTX's header.
#include "kernels/cuda/ranges.h"

namespace troupe::cuda {

Range::Range(const SegmentKey&, std::size_t) {}
Range::Range(const Op&) {}
Range::~Range() = default;

}  // namespace troupe::cuda
