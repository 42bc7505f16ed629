#include "launcher/inspect/events.h"

#include <algorithm>
#include <unordered_set>

namespace troupe {

namespace {

bool is_message_of(const JournalRecord& record, const Address& address) {
  const bool message = record.entry == JournalEntry::handled || record.entry == JournalEntry::sent;
  return message && (record.from() == address || record.to() == address);
}

}  // namespace

std::vector<LastMessage> last_messages(const std::vector<JournalPage>& journals, const Address& address,
                                       std::size_t most, std::int64_t until_us) {
  std::vector<LastMessage> found;
  std::unordered_set<std::uint64_t> handled;
  for (const JournalPage& page : journals)
    for (const JournalRecord& record : page.records) {
      if (!is_message_of(record, address)) continue;
      const bool done = record.entry == JournalEntry::handled;
      const std::int64_t at_us = done ? record.begin_us : record.sent_us;
      if (at_us > until_us) continue;
      if (done) handled.insert(record.id);
      found.push_back({record, at_us, page.owner.real_time_us > 0 ? page.owner.real_time_us + at_us : 0});
    }
  std::erase_if(found, [&](const LastMessage& one) {
    return one.record.entry == JournalEntry::sent && handled.contains(one.record.id);
  });
  const auto end = found.begin() + static_cast<std::ptrdiff_t>(std::min(most, found.size()));
  std::partial_sort(found.begin(), end, found.end(), [](const LastMessage& a, const LastMessage& b) {
    return a.at_us != b.at_us ? a.at_us > b.at_us : a.record.id > b.record.id;
  });
  found.erase(end, found.end());
  return found;
}

}  // namespace troupe
