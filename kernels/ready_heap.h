// The ready heap: segments that may run now, best first. "Highest priority first" is one pure function.
// Backward before forward, older step and microbatch first (one-forward-one-backward and its memory bound emerge),
// weight gradients last (they fill the gaps), evaluation after all of training.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/device.h"

namespace troupe {

// Smaller is more urgent.
inline std::tuple<int, std::int64_t, int, int> priority(const SegmentKey& key) {
  return {static_cast<int>(key.segment_class), key.step, key.microbatch,
          key.segment_class == SegmentClass::forward ? -key.layer : key.layer};
}

class ReadyHeap {
 public:
  void push(Segment segment);
  Segment pop();  // REQUIRES: !empty()
  bool empty() const { return heap_.empty(); }
  std::size_t size() const { return heap_.size(); }

 private:
  struct Entry {
    Segment segment;
    std::uint64_t arrival;
  };
  static bool later(const Entry& a, const Entry& b) {
    const auto pa = priority(a.segment.key), pb = priority(b.segment.key);
    return pa != pb ? pa > pb : a.arrival > b.arrival;
  }
  std::vector<Entry> heap_;
  std::uint64_t arrivals_ = 0;
};

}  // namespace troupe
