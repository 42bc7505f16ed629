#include "launcher/inspect/trace_queue.h"

#include <algorithm>

namespace troupe {

std::size_t TraceQueues::part_of(std::int64_t at_ns) const {
  const double share =
      static_cast<double>(std::clamp<std::int64_t>(at_ns, 0, length_ns_)) / static_cast<double>(length_ns_);
  return std::min(kParts - 1, static_cast<std::size_t>(share * kParts));
}

void TraceQueues::add(std::uint32_t node, const Address& actor, std::int64_t posted_ns, std::int64_t begun_ns) {
  auto& changes = changes_.try_emplace({node, actor}, kParts, 0).first->second;
  ++changes[part_of(posted_ns)];
  --changes[part_of(begun_ns)];
}

// A part's changes are told at its end: nobody sees a message before it is there.
void TraceQueues::write(TraceEvents& events) const {
  for (const auto& [who, changes] : changes_) {
    const std::string name = "queue of " + to_string(who.second);
    std::int64_t length = 0, told = -1;
    for (std::size_t part = 0; part < kParts; ++part) {
      length += changes[part];
      if (length == told) continue;
      const auto at_ns =
          static_cast<std::int64_t>(static_cast<double>(length_ns_) * static_cast<double>(part + 1) / kParts);
      events.counter(who.first, name, "messages", told < 0 ? 0 : at_ns, length);
      told = length;
    }
  }
}

}  // namespace troupe
