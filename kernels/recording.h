// What a compute thread did and when: one entry a segment, the first so many of them; what ran together (strand.h) is one
// entry, of the first. Kept only where somebody asks
// (device.record_segments), for the picture that `troupe timeline` draws.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device.h"

namespace troupe {

struct RecordedSegment {
  SegmentKey key;
  std::int64_t begin_us = 0, end_us = 0;  // of the machine's monotonic clock
};

// In the order in which they ran; once `most` are kept, later ones are not.
class Recording {
 public:
  explicit Recording(std::size_t most) : most_(most) { segments_.reserve(most); }
  bool wanted() const { return segments_.size() < most_; }
  void add(const SegmentKey& key, std::int64_t begin_us, std::int64_t end_us) {
    segments_.push_back({key, begin_us, end_us});
  }
  const std::vector<RecordedSegment>& segments() const { return segments_; }

 private:
  std::size_t most_;
  std::vector<RecordedSegment> segments_;
};

}  // namespace troupe
