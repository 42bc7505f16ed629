// SegmentGroup: independent segments of an actor, and what follows when all of them are done. One group runs at a time.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "actors/restoring.h"

namespace troupe {

class SegmentGroup {
 public:
  explicit SegmentGroup(Restoring& restoring) : restoring_(restoring) {}

  // Submits each list of ops as a segment, then, maybe at once, comes `next`. `token` comes back with each of them.
  void run(const SegmentKey& key, std::vector<Ops> work, std::uint64_t token, std::function<void()> next) {
    CHECK(left_ == 0, "a group of segments is still running");
    if (work.empty()) return next();
    left_ = work.size();
    next_ = std::move(next);
    for (Ops& ops : work) restoring_.submit(key, std::move(ops), token);
  }
  void segment_done() {
    if (--left_ == 0) std::exchange(next_, {})();
  }
  void forget() { left_ = 0; }  // a new attempt: what it would have led to
  bool active() const { return left_ > 0; }

 private:
  Restoring& restoring_;
  std::size_t left_ = 0;
  std::function<void()> next_;
};

}  // namespace troupe
