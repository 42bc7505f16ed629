// The journal: what happened on every node, as it was written, and every message with its cause.
#include "actors/journal.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "launcher/journal_file.h"
#include "tests/support/run.h"
#include "tests/support/small_world.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

struct Ring {
  explicit Ring(std::size_t records, std::uint32_t node = 0)
      : memory(journal_size(records)), journal(memory.data(), records, {.node = node, .number = 1}) {}
  std::vector<JournalRecord> read(std::uint64_t first = 0) const {
    return read_journal(memory.data(), memory.size(), first)->records;
  }
  std::vector<std::byte> memory;
  Journal journal;
};

Envelope vote(std::int64_t step) {
  return {{Role::stage, 3}, {Role::conductor, 0}, Vote{step, 2, {}, {}, {}}, 10, 20, 30};
}

bool is_message(const JournalRecord& r) { return r.entry == JournalEntry::handled; }
bool is_segment(const JournalRecord& r) { return r.entry == JournalEntry::segment; }

const std::size_t kSegmentDone = Message(SegmentDone{}).index();

}  // namespace

TEST_CASE("a journal holds what was written, in order, and of more than it has room for the last", "[journal]") {
  Ring ring(4);
  CHECK(ring.read().empty());
  for (std::int64_t step = 0; step < 10; ++step) ring.journal.handled(vote(step), 100 * step, 100 * step + 7);
  const auto records = ring.read();
  REQUIRE(records.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(records[i].step == static_cast<int>(6 + i));
  const JournalRecord& last = records.back();
  CHECK((last.id == 10 && last.cause == 20 && last.sent_us == 30 && last.begin_us == 900 && last.took_us == 7));
  CHECK((last.from() == Address{Role::stage, 3} && last.to() == Address{Role::conductor, 0}));
  CHECK(last.kind == Message(Vote{}).index());
  CHECK((last.attempt == 2 && last.microbatch == -1));
  CHECK(ring.read(9).size() == 1);
  CHECK(ring.read(10).empty());
}

TEST_CASE("a message is noted with its work and the bytes that ride beside it", "[journal]") {
  Ring ring(1);
  PayloadPool pool;
  ExpertBatch batch;
  batch.key = {.kind = WorkKind::evaluate, .direction = Direction::backward, .step = 5, .microbatch = 2, .layer = 3};
  batch.hidden = pool.take(1000);
  batch.gates = pool.take(24);
  ring.journal.sent({{Role::stage, 0}, {Role::expert_shard, 1}, batch});
  const JournalRecord record = ring.read().at(0);
  CHECK((record.entry == JournalEntry::sent && record.bytes == 1024));
  CHECK((record.step == 5 && record.microbatch == 2 && record.layer == 3 && record.chunk == 0));
  CHECK((record.work == static_cast<int>(WorkKind::evaluate) && record.direction == 1));
}

TEST_CASE("what is no journal, or cut short, is not read", "[journal]") {
  Ring ring(4);
  CHECK(!read_journal(ring.memory.data(), ring.memory.size() - 1));
  CHECK(!read_journal(ring.memory.data(), 10));
  std::vector<std::byte> zeros(ring.memory.size());
  CHECK(!read_journal(zeros.data(), zeros.size()));
}

TEST_CASE("whoever reads while several threads write is given whole records only", "[journal]") {
  Ring ring(4096);
  std::atomic<bool> over = false;
  std::vector<std::thread> writers;
  for (std::uint64_t writer = 0; writer < 2; ++writer)
    writers.emplace_back([&, writer] {
      for (std::uint64_t i = 0; !over; ++i) {
        const std::uint64_t word = i << 1 | writer;
        const auto time = static_cast<std::int64_t>(word);
        ring.journal.handled({{}, {}, Vote{time % 1000, 0, {}, {}, {}}, word, word, time}, time, time + 1);
      }
    });
  std::size_t read = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (read < 100'000 && std::chrono::steady_clock::now() < until)
    for (const JournalRecord& r : ring.read()) {
      ++read;
      REQUIRE((r.cause == r.id && r.sent_us == r.begin_us && r.id == static_cast<std::uint64_t>(r.begin_us)));
      REQUIRE(r.step == r.begin_us % 1000);
    }
  over = true;
  for (std::thread& writer : writers) writer.join();
  CHECK(read >= 100'000);
}

TEST_CASE("in a company every message and segment has a cause, and nothing is without effect or comes twice",
          "[journal]") {
  const SmallWorld world = small_world();
  std::map<std::uint64_t, int> handled, ran, sent;
  std::vector<JournalRecord> all;
  for (const JournalPage& page : world.journals) {
    CHECK(page.written == page.records.size());
    for (const JournalRecord& r : page.records) {
      all.push_back(r);
      if (is_message(r)) ++handled[r.id];
      if (is_segment(r)) ++ran[r.id];
      if (r.entry == JournalEntry::sent) ++sent[r.id];
    }
  }
  for (const JournalRecord& r : all) {
    if (!is_message(r) && !is_segment(r)) continue;
    INFO(kind_name(r.kind) << " to " << to_string(r.to()));
    REQUIRE((r.cause == 0 || handled.contains(r.cause)));
    REQUIRE((is_message(r) ? handled : ran)[r.id] == 1);
    if (is_message(r) && r.kind == kSegmentDone) REQUIRE(ran.contains(r.id));
    if (is_message(r)) REQUIRE(r.sent_us <= r.begin_us);
    // Nobody's: the supervisor's word, what actors do as they are made, and the disk's.
    if (r.cause != 0) continue;
    const std::string kind = kind_name(r.kind);
    CHECK((is_segment(r) || kind == "Recover" || kind == "DiskDone" || (kind == "SegmentDone" && r.step <= 0)));
  }
  for (const auto& [id, times] : sent) REQUIRE((times == 1 && handled.contains(id)));
  for (const auto& [id, times] : ran) REQUIRE(handled.contains(id));
  CHECK(world.segments == ran.size());
  CHECK(sent.size() > 100);
}

TEST_CASE("a process's journal is a file that stays, and the last few of a node are kept", "[journal]") {
  const Folder folder;
  const InspectConfig config{.journal_mib = 1, .journals_kept = 3};
  std::set<std::uint64_t> ids;
  for (std::int64_t process = 0; process < 5; ++process) {
    JournalFile file(folder / "", 7, config);
    ids.insert(file.journal().next_id());
    file.journal().handled(vote(process), 0, 1);
  }
  JournalFile other(folder / "", 8, config);
  const auto pages = read_journals(folder / "");
  REQUIRE(pages.size() == 4);
  CHECK(ids.size() == 5);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK((pages[i].owner.node == 7 && pages[i].owner.number == i + 3));
    CHECK(pages[i].records.at(0).step == static_cast<int>(i + 2));
  }
  CHECK(pages[3].owner.node == 8);
}
