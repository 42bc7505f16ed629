// The ready heap: segments that may run now, best first. "Highest priority first" is one pure function.
// Backward before forward, older step and microbatch first (one-forward-one-backward and its memory bound emerge),
// weight gradients last (they fill the gaps), evaluation after all of training.
// Two rules move a segment forward (SegmentKey::lead): a stage's forwards come before backwards until as many are under
// way as the stages after it need, and a weight gradient whose slot the next such forward needs comes with it.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/base/recycled.h"
#include "kernels/device.h"

namespace troupe {

using Priority = std::tuple<int, std::int64_t, std::int32_t, int, std::int32_t, std::int32_t>;

// Smaller is more urgent. Backwards and whatever has a lead are one queue, by turn.
inline Priority priority(const SegmentKey& key) {
  const int own = static_cast<int>(key.segment_class);
  const bool forward = key.segment_class == SegmentClass::forward;
  const bool leads = (forward || key.segment_class == SegmentClass::weight_gradient) && key.lead != SegmentKey::kNoLead;
  const int queue = leads ? static_cast<int>(SegmentClass::backward) : own;
  const std::int32_t turn = leads ? key.microbatch - key.lead : key.microbatch;
  return {queue, key.step, turn, own, key.microbatch, forward ? -key.layer : key.layer};
}

class ReadyHeap {
 public:
  static constexpr int kTogether = 4;
  static constexpr double kTogetherFlops = 4e8;
  static constexpr std::size_t kBeside = 64;  // as a GPU wants them
  // together: so many segments of a strand may run at once, and no more once they are worth kTogetherFlops.
  explicit ReadyHeap(int together = kTogether) : together_(together) {}
  void push(Segment segment);
  // The best segment, and what may run with it, into `out` (cleared first). REQUIRES: !empty()
  // beside: so many that have one key and know nothing of each other come at once, for a device that spreads each of them
  // over all of its processors: of class apply those without a strand, of weight gradients strands.
  void pop(std::vector<Segment>& out, std::size_t beside = 1);
  // What pop() gave has run: the next of each of its strands is ready.
  void done(const std::vector<Segment>& segments);
  bool empty() const { return heap_.empty(); }
  std::size_t size() const { return heap_.size(); }  // that a thread could take
  std::size_t parked() const { return parked_; }     // behind others of their strand

 private:
  void push_ready(Segment segment);
  Segment pop_best();
  void take_parked(std::vector<Segment>& out);  // behind the last of `out`
  void next_of(std::uint64_t strand);
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
