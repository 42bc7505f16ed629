// Events: what a simulated world does at a given virtual time besides what its parts do themselves: kills, restarts,
// starts. Two of one time run in the order in which they were entered.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <utility>

namespace troupe {

class Events {
 public:
  void at(std::int64_t time_us, std::function<void()> work) {
    queue_.emplace(Key{time_us, entered_++}, std::move(work));
  }
  std::int64_t next_us() const {
    return queue_.empty() ? std::numeric_limits<std::int64_t>::max() : queue_.begin()->first.first;
  }
  // Runs what is due by now; an event may enter others.
  void run(std::int64_t now_us) {
    while (next_us() <= now_us) {
      const auto work = std::move(queue_.begin()->second);
      queue_.erase(queue_.begin());
      work();
    }
  }

 private:
  using Key = std::pair<std::int64_t, std::uint64_t>;
  std::map<Key, std::function<void()>> queue_;
  std::uint64_t entered_ = 0;
};

}  // namespace troupe
