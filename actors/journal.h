// Journal: what happened on a node, the last of it: every message as it is handled (and as it leaves for another node),
// every segment, every wait that lasted. Order, times and headers, no payloads. It is a ring in memory that another
// process may read at any moment, and in a mapped file it outlives the process, however that ends.
// The law: a record that a reader is given was written as a whole. Loop and compute threads write; nobody waits.
//
// Every message and every segment of a run has a number, and the number of the message whose handler made it: its cause.
// A segment's end comes to its actor as a message with the segment's own number. So causes and effects are a forest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "actors/wait.h"
#include "kernels/device.h"

namespace troupe {

enum class JournalEntry : std::uint8_t { handled, sent, segment, wait };

// A record as it lies in the ring.
struct JournalRecord {
  std::uint64_t id = 0, cause = 0;  // of a wait: 0
  std::int64_t sent_us = 0;         // of a message: when it was posted, by its sender's clock
  std::int64_t begin_us = 0;        // when handling, running or waiting began
  std::uint32_t took_us = 0;
  JournalEntry entry = JournalEntry::handled;
  std::uint8_t kind = 0;  // of the message (its place in Message), of the segment (SegmentClass), of the wait (Awaited)
  std::uint8_t from_role = 0, to_role = 0;  // of a segment: whose it is, twice; of a wait: who waits, for whom
  std::uint32_t from_index = 0, to_index = 0;
  std::int32_t step = -1, microbatch = -1;  // -1: it is of none
  std::int16_t layer = -1, chunk = -1;      // of a segment: its place among those that ran together
  std::uint32_t bytes = 0;                  // of a message's payloads, at most 2^32 - 1
  std::uint16_t thread = 0, attempt = 0;    // attempt: modulo 2^16
  std::uint8_t work = 0, direction = 0;     // WorkKind, Direction
  std::uint16_t unused = 0;
  Address from() const { return {static_cast<Role>(from_role), from_index}; }
  Address to() const { return {static_cast<Role>(to_role), to_index}; }
};

struct JournalOwner {
  std::uint32_t node = 0;
  std::uint32_t number = 0;  // of this journal among the node's: no two have the same numbers of messages
  std::int64_t pid = 0;
  std::int64_t real_time_us = 0;  // of the machine's clock of the day, at zero of the run's
  std::uint64_t boot = 0;         // which start of which machine: those of one have one clock
};

constexpr std::size_t kJournalRecordBytes = 80;  // and room for a word that tells whether the record is whole
std::size_t journal_size(std::size_t records);   // bytes

// The writer's side.
class Journal {
 public:
  // REQUIRES: `memory` has journal_size(records) zeroed bytes, aligned to 8, and outlives the journal.
  Journal(std::byte* memory, std::size_t records, const JournalOwner& owner);

  // Of a message or segment that begins now to exist. Of the loop thread.
  std::uint64_t next_id() { return first_id_ + ++ids_; }
  // A message whose handler has returned. It was posted at envelope.sent_us.
  void handled(const Envelope& envelope, std::int64_t begin_us, std::int64_t end_us);
  // A message that leaves for another node.
  void sent(const Envelope& envelope);
  // Segments that ran together; by any thread. owners: the node's actors by handle.
  void ran(std::size_t thread, const std::vector<Segment>& segments, const std::vector<Address>& owners,
           std::int64_t begin_us, std::int64_t end_us);
  void waited(const Address& who, const Wait& wait, std::int64_t until_us);

 private:
  void write(const JournalRecord& record);
  std::byte* memory_;
  std::uint64_t first_id_, ids_ = 0;
};

// Which journal the message or segment was begun in, by its number: its node and number, each modulo 4096.
std::pair<std::uint32_t, std::uint32_t> journal_of(std::uint64_t id);

// What a reader makes of it: the records that are there, in the order in which they were begun to be written.
struct JournalPage {
  JournalOwner owner;
  std::uint64_t written = 0;  // records, with those that are overwritten
  std::vector<JournalRecord> records;
  std::uint64_t first = 0;  // number of the first of these; those before are overwritten, or were not asked for
};
// Those with a number of at least `first`, of these the last `most`. Empty: these bytes are no journal, or of another
// version.
std::optional<JournalPage> read_journal(const std::byte* bytes, std::size_t size, std::uint64_t first = 0,
                                        std::uint64_t most = std::numeric_limits<std::uint64_t>::max());
// A journal that holds these records, for whoever can't map the one that they are of.
std::vector<std::byte> pack_journal(const JournalPage& page);

// Of one journal after another, each record by itself, so that millions of them take no memory.
using HearRecord = std::function<void(const JournalOwner&, const JournalRecord&)>;
// False: these bytes are no journal, as above.
bool visit_journal(const std::byte* bytes, std::size_t size, const HearRecord& hear);

}  // namespace troupe
