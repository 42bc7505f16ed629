// How many messages an actor has not begun to handle, over a trace's time: from when each was posted and when its
// handler began. Counted in so many equal parts of the time, so that it takes the same memory however many there are.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "launcher/inspect/trace_events.h"
#include "messages/address.h"

namespace troupe {

class TraceQueues {
 public:
  explicit TraceQueues(std::int64_t length_ns) : length_ns_(length_ns > 0 ? length_ns : 1) {}
  void add(std::uint32_t node, const Address& actor, std::int64_t posted_ns, std::int64_t begun_ns);
  void write(TraceEvents& events) const;

 private:
  static constexpr std::size_t kParts = 2000;
  std::size_t part_of(std::int64_t at_ns) const;
  std::int64_t length_ns_;
  std::map<std::pair<std::uint32_t, Address>, std::vector<std::int32_t>> changes_;  // by part
};

}  // namespace troupe
