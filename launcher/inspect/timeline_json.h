// What the journals hold of some time, and one event with its cause and what it caused, as JSON: pure functions of what
// was read. The law: of the time that an answer names, it has all that the journals had, and says if it can't.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "actors/journal.h"

namespace troupe {

struct TimelinePart {
  std::int64_t from_us = std::numeric_limits<std::int64_t>::min(), to_us = std::numeric_limits<std::int64_t>::max();
  std::size_t limit = 20'000;      // rows, of all kinds together; the newest stay
  std::optional<Address> actor{};  // only what is of it, from it or to it
};

struct TimelineText {
  std::string json;
  // The journals, as they were read, lack something that could be in it: read more of them, if there is more.
  bool lacking = false;
};
TimelineText timeline_json(const std::vector<JournalPage>& pages, const TimelinePart& part);

// Empty: the event isn't there.
struct EventText {
  std::string json;
  bool lacking = false;  // it has a cause that isn't there
};
std::optional<EventText> event_json(const std::vector<JournalPage>& pages, std::uint64_t id);

}  // namespace troupe
