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

Segment ReadyHeap::pop_best() {
  std::pop_heap(heap_.begin(), heap_.end(), later);
  Segment best = std::move(heap_.back().segment);
  heap_.pop_back();
  return best;
}

void ReadyHeap::pop(std::vector<Segment>& out, std::size_t beside) {
  CHECK(!heap_.empty(), "pop from an empty ready heap");
  out.clear();
  out.push_back(pop_best());
  const SegmentKey key = out[0].key;
  const bool strands = out[0].strand != 0;
  if (key.segment_class != (strands ? SegmentClass::weight_gradient : SegmentClass::apply)) return;
  if (strands) take_parked(out);
  const auto joins = [&](const Segment& next) { return (next.strand != 0) == strands && next.key == key; };
  while (out.size() < beside && !heap_.empty() && joins(heap_.front().segment)) {
    out.push_back(pop_best());
    if (strands) take_parked(out);
  }
}

void ReadyHeap::take_parked(std::vector<Segment>& out) {
  auto& parked = strands_.at(out.back().strand);
  double flops = cost(out.back()).flops;
  std::size_t taken = 0;
  for (; taken < parked.size() && static_cast<int>(taken) + 1 < together_ && flops < kTogetherFlops; ++taken) {
    flops += cost(parked[taken]).flops;
    out.push_back(std::move(parked[taken]));
  }
  parked.erase(parked.begin(), parked.begin() + static_cast<std::ptrdiff_t>(taken));
  parked_ -= taken;
}

void ReadyHeap::done(const std::vector<Segment>& segments) {
  for (std::size_t i = 0; i < segments.size(); ++i)
    if (segments[i].strand != 0 && (i == 0 || segments[i].strand != segments[i - 1].strand))
      next_of(segments[i].strand);
}

void ReadyHeap::next_of(std::uint64_t strand) {
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
