// Lanes: an actor waits for several things at once, but slices of one thread of a trace must lie side by side or within
// one another. So its waits are dealt to as many lanes as that takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace troupe {

class WaitLanes {
 public:
  // The lane of a wait. They come by their ends, as a journal has them; any order is right, but may take more lanes.
  std::size_t lane_of(std::int64_t begin, std::int64_t end);

 private:
  struct Wait {
    std::int64_t begin = 0, end = 0;
  };
  struct Lane {
    std::vector<Wait> outermost;      // apart from one another, by time; at most kOutermostMax
    std::int64_t closed = INT64_MIN;  // what begins before this can't be placed any more
  };
  static bool take(Lane& lane, const Wait& wait);
  std::vector<Lane> lanes_;
};

}  // namespace troupe
