// By NVTX, whose headers look for a listening profiler when they are first called.
#include "kernels/cuda/ranges.h"

#include <fmt/format.h>
#include <nvtx3/nvToolsExt.h>

#include "kernels/profile.h"

namespace troupe::cuda {

namespace {

// Null: nobody listens.
nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t one = nvtxDomainCreateA("troupe");
  return one;
}

void push(const char* name) {
  nvtxEventAttributes_t attributes{};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name;
  nvtxDomainRangePushEx(domain(), &attributes);
}

}  // namespace

Range::Range(const SegmentKey& key, std::size_t segments) {
  if (domain() == nullptr) return;
  const std::string place = fmt::format("{} of step {}, microbatch {}, layer {}", to_string(key.segment_class),
                                        key.step, key.microbatch, key.layer);
  push((segments == 1 ? place : fmt::format("{}; {} together", place, segments)).c_str());
}

Range::Range(const Op& op) {
  if (domain() != nullptr) push(op_name(op.index()));
}

Range::~Range() {
  if (domain() != nullptr) nvtxDomainRangePop(domain());
}

}  // namespace troupe::cuda
