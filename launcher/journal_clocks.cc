#include "launcher/journal_clocks.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace troupe {

void JournalClocks::know(const JournalOwner& owner) { owners_.emplace(place_of(owner), owner); }

const JournalOwner& JournalClocks::reference() const {
  const std::uint32_t lowest = owners_.begin()->first.first;
  return std::prev(owners_.lower_bound({lowest + 1, 0}))->second;
}

bool JournalClocks::same() const {
  return std::all_of(owners_.begin(), owners_.end(),
                     [&](const auto& one) { return one.second.boot == reference().boot; });
}

void JournalClocks::hear(const JournalOwner& owner, const JournalRecord& record) {
  if (record.entry != JournalEntry::handled || record.id == 0) return;
  const auto sender = owners_.find(journal_of(record.id));
  if (sender == owners_.end() || sender->second.boot == owner.boot) return;
  const std::int64_t took_us = record.begin_us - record.sent_us;
  const auto [quickest, first] = quickest_.try_emplace({sender->first, place_of(owner)}, took_us);
  if (!first) quickest->second = std::min(quickest->second, took_us);
}

// The tightest of what is not laid yet and exchanged messages with what is.
bool JournalClocks::lay_by_messages() {
  std::int64_t tightest_us = std::numeric_limits<std::int64_t>::max(), ahead_us = 0;
  Place next;
  for (const auto& [way, there_us] : quickest_) {
    const auto& [from, to] = way;
    const auto back = quickest_.find({to, from});
    if (!ahead_.contains(from) || ahead_.contains(to) || back == quickest_.end()) continue;
    if (there_us + back->second >= tightest_us) continue;
    tightest_us = there_us + back->second;
    ahead_us = ahead_.at(from) + (there_us - back->second) / 2;
    next = to;
  }
  if (tightest_us == std::numeric_limits<std::int64_t>::max()) return false;
  ahead_.emplace(next, ahead_us);
  return true;
}

bool JournalClocks::lay_by_boot() {
  for (const auto& [place, owner] : owners_) {
    if (ahead_.contains(place)) continue;
    const std::uint64_t boot = owner.boot;
    const auto brother = std::find_if(ahead_.begin(), ahead_.end(),
                                      [&](const auto& laid) { return owners_.at(laid.first).boot == boot; });
    if (brother == ahead_.end()) continue;
    ahead_.emplace(place, brother->second);
    return true;
  }
  return false;
}

bool JournalClocks::lay_by_day() {
  for (const auto& [place, owner] : owners_)
    if (ahead_.emplace(place, reference().real_time_us - owner.real_time_us).second) return true;
  return false;
}

void JournalClocks::lay() {
  if (owners_.empty()) return;
  for (const auto& [place, owner] : owners_)
    if (owner.boot == reference().boot) ahead_.emplace(place, 0);
  while (lay_by_boot() || lay_by_messages() || lay_by_day()) {
  }
}

void JournalClocks::move(JournalOwner& owner, JournalRecord& record) const {
  const auto ahead = ahead_.find(place_of(owner));
  if (ahead == ahead_.end()) return;
  owner.real_time_us = reference().real_time_us;
  record.begin_us -= ahead->second;
  // A message carries its sender's time, a wait and a segment none.
  const auto sender = record.id == 0 ? ahead_.end() : ahead_.find(journal_of(record.id));
  if (record.sent_us != 0) record.sent_us -= (sender == ahead_.end() ? ahead : sender)->second;
}

void JournalClocks::move(JournalPage& page) const {
  JournalOwner moved = page.owner;
  for (JournalRecord& record : page.records) {
    moved = page.owner;
    move(moved, record);
  }
  page.owner = moved;
}

void lay_clocks(std::vector<JournalPage>& pages) {
  JournalClocks clocks;
  for (const JournalPage& page : pages) clocks.know(page.owner);
  if (clocks.same()) return;
  for (const JournalPage& page : pages)
    for (const JournalRecord& record : page.records) clocks.hear(page.owner, record);
  clocks.lay();
  for (JournalPage& page : pages) clocks.move(page);
}

}  // namespace troupe
