// The ready heap: segments that may run now, best first. "Highest priority first" is one pure function.
// Backward before forward, older step and microbatch first (one-forward-one-backward and its memory bound emerge),
// weight gradients last (they fill the gaps), evaluation after all of training.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/base/recycled.h"
#include "kernels/device.h"

namespace troupe {

// Smaller is more urgent.
inline std::tuple<int, std::int64_t, int, int> priority(const SegmentKey& key) {
  return {static_cast<int>(key.segment_class), key.step, key.microbatch,
          key.segment_class == SegmentClass::forward ? -key.layer : key.layer};
}

class ReadyHeap {
 public:
  // together: so many segments of a strand may run at once, and no more once they are worth kTogetherFlops.
  explicit ReadyHeap(int together = 4) : together_(together) {}
  void push(Segment segment);
  // The best segment, and what may run with it, into `out` (cleared first). REQUIRES: !empty()
  void pop(std::vector<Segment>& out);
  // What pop() gave has run: the next of its strand is ready.
  void done(const std::vector<Segment>& segments);
  bool empty() const { return heap_.empty(); }
  std::size_t size() const { return heap_.size(); }  // that a thread could take
  std::size_t parked() const { return parked_; }     // behind others of their strand

 private:
  static constexpr double kTogetherFlops = 4e8;
  void push_ready(Segment segment);
  struct Entry {
    Segment segment;
    std::uint64_t arrival;
  };
  static bool later(const Entry& a, const Entry& b) {
    const auto pa = priority(a.segment.key), pb = priority(b.segment.key);
    return pa != pb ? pa > pb : a.arrival > b.arrival;
  }
  std::vector<Entry> heap_;
  RecycledMap<std::uint64_t, RecycledVector<Segment>> strands_;  // behind one that is in the heap or runs
  std::size_t parked_ = 0;
  int together_;
  std::uint64_t arrivals_ = 0;
};

}  // namespace troupe
