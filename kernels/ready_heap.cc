#include "kernels/ready_heap.h"

#include <algorithm>
#include <utility>

#include "kernels/cost.h"

namespace troupe {

void ReadyHeap::push(Segment segment) {
  if (segment.strand == 0) return push_ready(std::move(segment));
  const auto [strand, first] = strands_.try_emplace(segment.strand);
  if (first) return push_ready(std::move(segment));
  strand->second.push_back(std::move(segment));
  ++parked_;
}

void ReadyHeap::push_ready(Segment segment) {
  heap_.push_back({std::move(segment), arrivals_++});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

void ReadyHeap::pop(std::vector<Segment>& out) {
  CHECK(!heap_.empty(), "pop from an empty ready heap");
  out.clear();
  std::pop_heap(heap_.begin(), heap_.end(), later);
  out.push_back(std::move(heap_.back().segment));
  heap_.pop_back();
  if (out[0].strand == 0) return;
  auto& parked = strands_.at(out[0].strand);
  double flops = cost(out[0]).flops;
  std::size_t taken = 0;
  for (; taken < parked.size() && static_cast<int>(out.size()) < together_ && flops < kTogetherFlops; ++taken) {
    flops += cost(parked[taken]).flops;
    out.push_back(std::move(parked[taken]));
  }
  parked.erase(parked.begin(), parked.begin() + static_cast<std::ptrdiff_t>(taken));
  parked_ -= taken;
}

void ReadyHeap::done(const std::vector<Segment>& segments) {
  const std::uint64_t strand = segments.front().strand;
  if (strand == 0) return;
  const auto found = strands_.find(strand);
  if (found->second.empty()) {
    strands_.erase(found);
    return;
  }
  push_ready(std::move(found->second.front()));
  found->second.erase(found->second.begin());
  --parked_;
}

}  // namespace troupe
