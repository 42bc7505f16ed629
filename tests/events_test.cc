// What the journals tell of one actor.
#include "launcher/inspect/events.h"
#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr Address kStage{Role::stage, 0}, kShard{Role::expert_shard, 1}, kLoader{Role::loader, 0};

JournalRecord message(JournalEntry entry, std::uint64_t id, const Address& from, const Address& to,
                      std::int64_t at_us) {
  JournalRecord record;
  record.id = id;
  record.entry = entry;
  record.from_role = static_cast<std::uint8_t>(from.role);
  record.from_index = from.index;
  record.to_role = static_cast<std::uint8_t>(to.role);
  record.to_index = to.index;
  (entry == JournalEntry::sent ? record.sent_us : record.begin_us) = at_us;
  return record;
}

JournalPage page(std::uint32_t node, std::int64_t real_time_us, std::vector<JournalRecord> records) {
  return {{node, 1, 77, real_time_us}, records.size(), std::move(records)};
}

std::vector<std::uint64_t> ids(const std::vector<LastMessage>& messages) {
  std::vector<std::uint64_t> all;
  for (const LastMessage& one : messages) all.push_back(one.record.id);
  return all;
}

}  // namespace

TEST_CASE("an actor's last messages come from all journals, the newest first, at most so many", "[inspect]") {
  const auto handled = JournalEntry::handled;
  const std::vector<JournalPage> journals{
      page(0, 1000,
           {message(handled, 1, kLoader, kStage, 10), message(handled, 2, kShard, kStage, 30),
            message(handled, 3, kLoader, kShard, 35), message(JournalEntry::wait, 0, kStage, kShard, 36),
            message(JournalEntry::segment, 4, kStage, kStage, 37)}),
      page(1, 0, {message(handled, 5, kStage, kShard, 20), message(handled, 6, kStage, kShard, 40)})};
  CHECK(ids(last_messages(journals, kStage, 10, 100)) == std::vector<std::uint64_t>{6, 2, 5, 1});
  CHECK(ids(last_messages(journals, kStage, 2, 100)) == std::vector<std::uint64_t>{6, 2});
  CHECK(last_messages(journals, {Role::judge, 0}, 10, 100).empty());
  const auto all = last_messages(journals, kStage, 10, 100);
  CHECK(all[1].at_us == 30);
  CHECK(all[1].clock_us == 1030);
  CHECK(all[0].clock_us == 0);
}

TEST_CASE("a message that left for another node is told until somebody has handled it", "[inspect]") {
  std::vector<JournalPage> journals{page(0, 0, {message(JournalEntry::sent, 7, kStage, kShard, 50)}), page(1, 0, {})};
  const auto waiting = last_messages(journals, kStage, 10, 100);
  REQUIRE(ids(waiting) == std::vector<std::uint64_t>{7});
  CHECK(waiting[0].record.entry == JournalEntry::sent);
  CHECK(waiting[0].at_us == 50);
  CHECK(ids(last_messages(journals, kShard, 10, 100)) == std::vector<std::uint64_t>{7});
  journals[1].records.push_back(message(JournalEntry::handled, 7, kStage, kShard, 60));
  const auto done = last_messages(journals, kStage, 10, 100);
  REQUIRE(done.size() == 1);
  CHECK(done[0].record.entry == JournalEntry::handled);
}

TEST_CASE("a journal that was read later than another tells no more than it", "[inspect]") {
  const std::vector<JournalPage> journals{
      page(0, 0, {message(JournalEntry::handled, 7, kShard, kStage, 50)}),
      page(1, 0,
           {message(JournalEntry::sent, 7, kShard, kStage, 40), message(JournalEntry::sent, 8, kShard, kStage, 90)})};
  CHECK(ids(last_messages(journals, kStage, 10, 60)) == std::vector<std::uint64_t>{7});
  const auto before = last_messages(journals, kStage, 10, 45);  // on its way
  REQUIRE(before.size() == 1);
  CHECK(before[0].record.entry == JournalEntry::sent);
}
