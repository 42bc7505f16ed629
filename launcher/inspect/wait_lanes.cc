#include "launcher/inspect/wait_lanes.h"

#include <algorithm>

namespace troupe {

namespace {
constexpr std::size_t kOutermostMax = 512;
}  // namespace

std::size_t WaitLanes::lane_of(std::int64_t begin, std::int64_t end) {
  for (std::size_t i = 0; i < lanes_.size(); ++i)
    if (take(lanes_[i], {begin, end})) return i;
  lanes_.emplace_back();
  take(lanes_.back(), {begin, end});
  return lanes_.size() - 1;
}

// It fits if each other one is before it, after it, or strictly begins after it and ends within it: of two that begin
// together a reader takes the one that is told first for the outer one.
bool WaitLanes::take(Lane& lane, const Wait& wait) {
  if (wait.begin < lane.closed) return false;
  auto& all = lane.outermost;
  auto after = all.end();
  while (after != all.begin() && std::prev(after)->begin >= wait.end) --after;
  auto within = after;
  while (within != all.begin() && std::prev(within)->end > wait.begin) {
    --within;
    if (within->begin <= wait.begin || within->end > wait.end) return false;
  }
  const auto at = all.erase(within, after);
  all.insert(at, wait);
  if (all.size() <= kOutermostMax) return true;
  lane.closed = all[all.size() / 2 - 1].end;
  all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2));
  return true;
}

}  // namespace troupe
