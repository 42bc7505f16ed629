#include "kernels/ready_heap.h"

#include <algorithm>

namespace troupe {

void ReadyHeap::push(Segment segment) {
  heap_.push_back({std::move(segment), arrivals_++});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

Segment ReadyHeap::pop() {
  CHECK(!heap_.empty(), "pop from an empty ready heap");
  std::pop_heap(heap_.begin(), heap_.end(), later);
  Segment best = std::move(heap_.back().segment);
  heap_.pop_back();
  return best;
}

}  // namespace troupe
