#include "launcher/inspect/timeline_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "launcher/inspect/view.h"

namespace troupe {

namespace {

constexpr std::size_t kCausedMax = 200;

struct Event {
  const JournalRecord* record = nullptr;
  std::uint32_t node = 0;
};
using Nodes = std::map<Address, std::uint32_t>;

std::int64_t end_of(const JournalRecord& r) {
  return r.entry == JournalEntry::sent ? r.sent_us : r.begin_us + static_cast<std::int64_t>(r.took_us);
}
std::int64_t begin_of(const JournalRecord& r) { return r.entry == JournalEntry::sent ? r.sent_us : r.begin_us; }

// A placement holds for a whole run: who handles or computes is at home, and so is who sends to another node.
Nodes homes(const std::vector<JournalPage>& pages) {
  Nodes nodes;
  for (const JournalPage& page : pages)
    for (const JournalRecord& r : page.records)
      nodes[r.entry == JournalEntry::handled ? r.to() : r.from()] = page.owner.node;
  return nodes;
}

// What a node tells its own actors says that it is from the supervisor.
std::int64_t home_of(const Nodes& nodes, const Address& address, std::uint32_t otherwise) {
  if (address.role == Role::supervisor) return otherwise;
  const auto found = nodes.find(address);
  return found == nodes.end() ? -1 : static_cast<std::int64_t>(found->second);
}

std::string segment_row(const Event& event) {
  const JournalRecord& r = *event.record;
  return fmt::format(R"(["{}","{}",{},{},{},{},"{}","{}",{},{},{}])", r.id, r.cause, event.node, r.thread, r.begin_us,
                     end_of(r), name_of(static_cast<SegmentClass>(r.kind)), to_string(r.from()), r.step, r.microbatch,
                     r.layer);
}

std::string message_row(const Event& event, const Nodes& nodes) {
  const JournalRecord& r = *event.record;
  return fmt::format(R"(["{}","{}","{}","{}","{}",{},{},{},{},{},{},{},{},{}])", r.id, r.cause, kind_name(r.kind),
                     to_string(r.from()), to_string(r.to()), home_of(nodes, r.from(), event.node), event.node,
                     r.sent_us, r.begin_us, r.took_us, r.step, r.microbatch, r.layer, r.bytes);
}

std::string wait_row(const JournalRecord& r) {
  const auto what = static_cast<Awaited>(r.kind);
  return fmt::format(R"(["{}","{}","{}",{},{}])", to_string(r.from()), r.kind < kAwaited ? to_string(what) : "?",
                     to_string(r.to()), r.begin_us, end_of(r));
}

// From when on the journals, as they were read, lack nothing. Records stand in the order of their ends.
std::int64_t whole_from(const std::vector<JournalPage>& pages) {
  std::int64_t from_us = std::numeric_limits<std::int64_t>::min();
  std::map<std::uint32_t, const JournalPage*> oldest;
  for (const JournalPage& page : pages) {
    const JournalPage*& known = oldest.try_emplace(page.owner.node, &page).first->second;
    if (page.owner.number < known->owner.number) known = &page;
    if (page.first > 0 && !page.records.empty()) from_us = std::max(from_us, end_of(page.records.front()) + 1);
  }
  for (const auto& [node, page] : oldest)  // of a node's journals only the last few are kept
    if (page->owner.number > 1 && !page->records.empty()) from_us = std::max(from_us, begin_of(page->records.front()));
  return from_us;
}

bool is_of(const JournalRecord& r, const std::optional<Address>& actor) {
  return !actor || r.from() == *actor || r.to() == *actor;
}

std::vector<Event> events_in(const std::vector<JournalPage>& pages, const TimelinePart& part) {
  std::vector<Event> events;
  for (const JournalPage& page : pages)
    for (const JournalRecord& r : page.records)
      if (r.entry != JournalEntry::sent && begin_of(r) <= part.to_us && end_of(r) >= part.from_us &&
          is_of(r, part.actor))
        events.push_back({&r, page.owner.node});
  return events;
}

// Leaves the newest; tells from when on nothing was left out.
std::int64_t cut(std::vector<Event>& events, std::size_t limit) {
  if (events.size() <= limit) return std::numeric_limits<std::int64_t>::min();
  const auto newer = [](const Event& a, const Event& b) { return end_of(*a.record) > end_of(*b.record); };
  const auto end = events.begin() + static_cast<std::ptrdiff_t>(limit);
  std::nth_element(events.begin(), end, events.end(), newer);
  const std::int64_t from_us = end_of(*end->record) + 1;
  events.erase(end, events.end());
  return from_us;
}

void add_row(std::string& rows, const std::string& row) {
  if (!rows.empty()) rows += ',';
  rows += row;
}

std::string event_text(const Event& event, const Nodes& nodes) {
  return event.record->entry == JournalEntry::segment ? fmt::format(R"({{"segment":{}}})", segment_row(event))
                                                      : fmt::format(R"({{"message":{}}})", message_row(event, nodes));
}

// A segment and the message that tells of its end have one number: the segment stands for both.
void keep(std::unordered_map<std::uint64_t, Event>& events, const Event& event) {
  Event& known = events.try_emplace(event.record->id, event).first->second;
  if (event.record->entry == JournalEntry::segment) known = event;
}

}  // namespace

TimelineText timeline_json(const std::vector<JournalPage>& pages, const TimelinePart& part) {
  std::vector<Event> events = events_in(pages, part);
  const std::int64_t known_us = whole_from(pages), cut_us = cut(events, part.limit);
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::pair(a.record->begin_us, a.record->id) < std::pair(b.record->begin_us, b.record->id);
  });
  const Nodes nodes = homes(pages);
  std::string segments, messages, waits;
  std::int64_t last_us = 0;
  for (const Event& event : events) {
    last_us = std::max(last_us, end_of(*event.record));
    if (event.record->entry == JournalEntry::segment) add_row(segments, segment_row(event));
    if (event.record->entry == JournalEntry::handled) add_row(messages, message_row(event, nodes));
    if (event.record->entry == JournalEntry::wait) add_row(waits, wait_row(*event.record));
  }
  const bool open_begin = part.from_us == std::numeric_limits<std::int64_t>::min();
  const bool open_end = part.to_us == std::numeric_limits<std::int64_t>::max();
  const std::int64_t asked_us = open_begin && !events.empty() ? events.front().record->begin_us : part.from_us;
  const std::int64_t from_us = std::max({open_begin && events.empty() ? 0 : asked_us, cut_us, known_us});
  const bool complete = std::max(cut_us, known_us) <= part.from_us;
  TimelineText text;
  text.lacking = known_us > std::max(part.from_us, cut_us);
  text.json = fmt::format(R"({{"from_us":{},"to_us":{},"complete":{},"segments":[{}],"messages":[{}],"waits":[{}]}})",
                          from_us, open_end ? last_us : part.to_us, complete, segments, messages, waits);
  return text;
}

std::optional<EventText> event_json(const std::vector<JournalPage>& pages, std::uint64_t id) {
  const Nodes nodes = homes(pages);
  std::unordered_map<std::uint64_t, Event> found, caused;
  for (const JournalPage& page : pages)
    for (const JournalRecord& r : page.records) {
      if (r.entry != JournalEntry::handled && r.entry != JournalEntry::segment) continue;
      if (r.id == id) keep(found, {&r, page.owner.node});
      if (r.cause == id && r.id != id) keep(caused, {&r, page.owner.node});
    }
  if (id == 0 || found.empty()) return std::nullopt;
  const Event event = found.begin()->second;
  std::unordered_map<std::uint64_t, Event> causes;
  for (const JournalPage& page : pages)
    for (const JournalRecord& r : page.records)
      if (r.id == event.record->cause && r.id != 0 && r.entry != JournalEntry::wait && r.entry != JournalEntry::sent)
        keep(causes, {&r, page.owner.node});
  std::vector<Event> effects;
  for (const auto& [number, effect] : caused) effects.push_back(effect);
  std::sort(effects.begin(), effects.end(), [](const Event& a, const Event& b) {
    return std::pair(a.record->begin_us, a.record->id) < std::pair(b.record->begin_us, b.record->id);
  });
  std::string rows;
  for (std::size_t i = 0; i < std::min(effects.size(), kCausedMax); ++i) add_row(rows, event_text(effects[i], nodes));
  EventText text;
  text.lacking = causes.empty() && event.record->cause != 0;
  text.json = fmt::format(R"({{"event":{},"cause":{},"caused":[{}],"caused_more":{}}})", event_text(event, nodes),
                          causes.empty() ? "null" : event_text(causes.begin()->second, nodes), rows,
                          effects.size() > kCausedMax);
  return text;
}

}  // namespace troupe
