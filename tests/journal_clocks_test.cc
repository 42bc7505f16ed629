// Journals of machines whose clocks differ, as whoever reads them gets them.
#include "launcher/journal_clocks.h"

#include "messages/message.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr std::int64_t kHour = 3'600'000'000;

// What really happened, and by whose clocks it was written down.
struct Machines {
  explicit Machines(std::vector<std::int64_t> clocks_ahead_us) : ahead_us(std::move(clocks_ahead_us)) {
    for (std::uint32_t node = 0; node < ahead_us.size(); ++node)
      // The clocks of the day are wrong by a second each, another way.
      pages.push_back({{node, 1, 7, 1'000'000 * node - ahead_us[node], node + 100}, 0, {}, 0});
  }
  void message(std::uint32_t from, std::uint32_t to, std::int64_t sent_us, std::int64_t took_us) {
    JournalRecord record{.id = std::uint64_t{from + 1} << 52 | std::uint64_t{1} << 40 | ++number};
    record.sent_us = sent_us + ahead_us[from];
    record.begin_us = sent_us + took_us + ahead_us[to];
    pages[to].records.push_back(record);
  }
  // By node 0's clock.
  std::int64_t sent(std::uint32_t node, std::size_t i) const { return pages[node].records[i].sent_us - ahead_us[0]; }
  std::int64_t begun(std::uint32_t node, std::size_t i) const { return pages[node].records[i].begin_us - ahead_us[0]; }

  std::vector<std::int64_t> ahead_us;
  std::vector<JournalPage> pages;
  std::uint64_t number = 0;
};

}  // namespace

TEST_CASE("a journal's numbers tell which journal they are of", "[journal]") {
  std::vector<std::byte> memory(journal_size(1));
  Journal journal(memory.data(), 1, {.node = 300, .number = 12});
  CHECK(journal_of(journal.next_id()) == std::pair<std::uint32_t, std::uint32_t>{300, 12});
}

TEST_CASE("clocks of different machines are laid upon each other by the quickest messages both ways", "[journal]") {
  Machines m({0, 5 * kHour, -7 * kHour});
  m.message(0, 1, 1000, 90);
  m.message(0, 1, 2000, 30);
  m.message(1, 0, 3000, 30);
  m.message(1, 0, 4000, 500);
  m.message(1, 2, 5000, 20);  // node 2 never speaks to node 0
  m.message(2, 1, 6000, 24);
  lay_clocks(m.pages);
  CHECK(m.sent(1, 0) == 1000);
  CHECK(m.begun(1, 0) == 1090);
  CHECK(m.sent(0, 0) == 3000);
  CHECK(m.begun(0, 1) == 4500);
  CHECK(std::abs(m.begun(2, 0) - 5020) <= 2);  // half of what the ways differ by
  CHECK(std::abs(m.sent(1, 2) - 6000) <= 2);
  for (const JournalPage& page : m.pages)
    for (const JournalRecord& record : page.records) CHECK(record.begin_us >= record.sent_us);
}

TEST_CASE("where no messages went both ways the clocks of the day must do", "[journal]") {
  Machines m({0, 5 * kHour});
  m.message(0, 1, 1000, 90);
  m.pages[1].owner.real_time_us = 250 - 5 * kHour;  // wrong by 250 us
  lay_clocks(m.pages);
  CHECK(m.begun(1, 0) == 1090 + 250);
  CHECK(m.sent(1, 0) == 1000);
}

TEST_CASE("journals of one machine keep their times, also of a process that came later", "[journal]") {
  Machines m({0, 0, 3 * kHour});
  m.pages[1].owner.boot = m.pages[0].owner.boot;
  m.message(0, 1, 1000, 90);
  m.message(0, 2, 1000, 50);
  m.message(2, 0, 1000, 50);
  m.message(1, 2, 9000, 50);  // it is its brother that exchanged messages with node 2
  lay_clocks(m.pages);
  CHECK(m.begun(1, 0) == 1090);
  CHECK(m.begun(2, 0) == 1050);
  CHECK(m.sent(2, 1) == 9000);
}

TEST_CASE("a machine that was started anew goes on where the day was", "[journal]") {
  Machines m({0, 0});
  m.pages[1].owner = {0, 2, 8, 50 * kHour, 777};  // node 0's second journal, 50 hours later; it is the reference
  m.pages[0].owner.real_time_us = 0;
  m.pages[0].records.push_back({.begin_us = 100});
  m.pages[1].records.push_back({.begin_us = 100});
  lay_clocks(m.pages);
  CHECK(m.pages[1].records[0].begin_us == 100);
  CHECK(m.pages[0].records[0].begin_us == 100 - 50 * kHour);
  CHECK(m.pages[0].owner.real_time_us == 50 * kHour);
}
