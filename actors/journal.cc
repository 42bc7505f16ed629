#include "actors/journal.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <new>

#include "kernels/base/check.h"
#include "messages/codec.h"

namespace troupe {

namespace {

constexpr std::array<char, 8> kMagic = {'T', 'R', 'J', 'O', 'U', 'R', 'N', '\0'};
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kWords = kJournalRecordBytes / 8;
static_assert(sizeof(JournalRecord) == kJournalRecordBytes - 8);

// number: of the record plus one, written last; zero while it is being written.
struct Slot {
  std::atomic<std::uint64_t> number;
  std::array<std::atomic<std::uint64_t>, kWords - 1> words;
};
struct Header {
  std::array<char, 8> magic;
  std::uint32_t version, node;
  std::uint32_t number, unused;
  std::int64_t pid, real_time_us;
  std::uint64_t boot;
  std::uint64_t records;
  std::atomic<std::uint64_t> written;
};

Header& header_of(std::byte* memory) { return *std::launder(reinterpret_cast<Header*>(memory)); }
Slot& slot_of(std::byte* memory, std::uint64_t index) {
  return *std::launder(reinterpret_cast<Slot*>(memory + sizeof(Header) + index * sizeof(Slot)));
}

std::uint32_t at_most_32(std::uint64_t value) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(value, 0xFFFFFFFF));
}
std::uint32_t taken(std::int64_t begin_us, std::int64_t end_us) {
  return at_most_32(static_cast<std::uint64_t>(std::max<std::int64_t>(0, end_us - begin_us)));
}

void note(JournalRecord& record, const WorkKey& key) {
  record.step = static_cast<std::int32_t>(key.step);
  record.microbatch = key.microbatch;
  record.layer = static_cast<std::int16_t>(key.layer);
  record.chunk = static_cast<std::int16_t>(key.chunk);
  record.attempt = static_cast<std::uint16_t>(key.attempt);
  record.work = static_cast<std::uint8_t>(key.kind);
  record.direction = static_cast<std::uint8_t>(key.direction);
}

JournalRecord record_of(const Envelope& envelope, JournalEntry entry) {
  JournalRecord record{.id = envelope.id, .cause = envelope.cause, .sent_us = envelope.sent_us, .entry = entry};
  record.kind = static_cast<std::uint8_t>(envelope.message.index());
  record.from_role = static_cast<std::uint8_t>(envelope.from.role);
  record.from_index = envelope.from.index;
  record.to_role = static_cast<std::uint8_t>(envelope.to.role);
  record.to_index = envelope.to.index;
  if (const auto key = work_of(envelope.message)) note(record, *key);
  record.bytes = at_most_32(payload_bytes(envelope.message));
  return record;
}

void write_record(std::byte* memory, const JournalRecord& record) {
  Header& header = header_of(memory);
  const std::uint64_t number = header.written.fetch_add(1, std::memory_order_relaxed);
  Slot& slot = slot_of(memory, number % header.records);
  const auto words = std::bit_cast<std::array<std::uint64_t, kWords - 1>>(record);
  slot.number.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  for (std::size_t i = 0; i < words.size(); ++i) slot.words[i].store(words[i], std::memory_order_relaxed);
  slot.number.store(number + 1, std::memory_order_release);
}

bool read_slot(const Slot& slot, std::uint64_t number, JournalRecord& record) {
  if (slot.number.load(std::memory_order_acquire) != number + 1) return false;
  std::array<std::uint64_t, kWords - 1> words{};
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = slot.words[i].load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (slot.number.load(std::memory_order_relaxed) != number + 1) return false;
  record = std::bit_cast<JournalRecord>(words);
  return true;
}

}  // namespace

std::size_t journal_size(std::size_t records) { return sizeof(Header) + records * sizeof(Slot); }

Journal::Journal(std::byte* memory, std::size_t records, const JournalOwner& owner)
    : memory_(memory),
      first_id_(std::uint64_t{owner.node % 4096 + 1} << 52 | std::uint64_t{owner.number % 4096} << 40) {
  CHECK(records > 0, "a journal of no records");
  Header* header = new (memory) Header{};
  header->version = kVersion;
  header->node = owner.node;
  header->number = owner.number;
  header->pid = owner.pid;
  header->real_time_us = owner.real_time_us;
  header->boot = owner.boot;
  header->records = records;
  header->magic = kMagic;
}

std::pair<std::uint32_t, std::uint32_t> journal_of(std::uint64_t id) {
  return {static_cast<std::uint32_t>(id >> 52) - 1, static_cast<std::uint32_t>(id >> 40) % 4096};
}

void Journal::write(const JournalRecord& record) { write_record(memory_, record); }

void Journal::handled(const Envelope& envelope, std::int64_t begin_us, std::int64_t end_us) {
  JournalRecord record = record_of(envelope, JournalEntry::handled);
  record.begin_us = begin_us;
  record.took_us = taken(begin_us, end_us);
  write(record);
}

void Journal::sent(const Envelope& envelope) { write(record_of(envelope, JournalEntry::sent)); }

void Journal::ran(std::size_t thread, const std::vector<Segment>& segments, const std::vector<Address>& owners,
                  std::int64_t begin_us, std::int64_t end_us) {
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const auto& [key, ops, done, strand, early] = segments[i];
    const Address& owner = owners.at(done.actor);
    JournalRecord record{.id = done.id, .cause = done.cause, .begin_us = begin_us};
    record.entry = JournalEntry::segment;
    record.took_us = taken(begin_us, end_us);
    record.kind = static_cast<std::uint8_t>(key.segment_class);
    record.from_role = record.to_role = static_cast<std::uint8_t>(owner.role);
    record.from_index = record.to_index = owner.index;
    record.step = static_cast<std::int32_t>(key.step);
    record.microbatch = key.microbatch;
    record.layer = static_cast<std::int16_t>(key.layer);
    record.chunk = static_cast<std::int16_t>(i);
    record.thread = static_cast<std::uint16_t>(thread);
    write(record);
  }
}

void Journal::waited(const Address& who, const Wait& wait, std::int64_t until_us) {
  JournalRecord record{.begin_us = wait.since_us, .took_us = taken(wait.since_us, until_us)};
  record.entry = JournalEntry::wait;
  record.kind = static_cast<std::uint8_t>(wait.what);
  record.from_role = static_cast<std::uint8_t>(who.role);
  record.from_index = who.index;
  record.to_role = static_cast<std::uint8_t>(wait.holder.role);
  record.to_index = wait.holder.index;
  note(record, wait.item);
  write(record);
}

namespace {

// Null: these bytes are no journal.
const Header* header_in(std::byte* memory, std::size_t size) {
  if (size < sizeof(Header)) return nullptr;
  const Header& header = header_of(memory);
  const bool whole = header.magic == kMagic && header.version == kVersion && header.records != 0 &&
                     header.records <= size / sizeof(Slot) && journal_size(header.records) == size;
  return whole ? &header : nullptr;
}

JournalOwner owner_of(const Header& header) {
  return {header.node, header.number, header.pid, header.real_time_us, header.boot};
}

}  // namespace

std::optional<JournalPage> read_journal(const std::byte* bytes, std::size_t size, std::uint64_t first,
                                        std::uint64_t most) {
  auto* memory = const_cast<std::byte*>(bytes);  // atomics are read through references that could write
  const Header* header = header_in(memory, size);
  if (header == nullptr) return std::nullopt;
  JournalPage page{owner_of(*header), header->written.load(std::memory_order_acquire), {}, 0};
  const std::uint64_t kept = std::min({page.written, header->records, most});
  for (std::uint64_t number = std::max(first, page.written - kept); number < page.written; ++number) {
    JournalRecord record;
    if (!read_slot(slot_of(memory, number % header->records), number, record)) continue;
    if (page.records.empty()) page.first = number;
    page.records.push_back(record);
  }
  return page;
}

std::vector<std::byte> pack_journal(const JournalPage& page) {
  const std::size_t records = std::max<std::size_t>(1, page.records.size());
  std::vector<std::byte> memory(journal_size(records));
  const Journal journal(memory.data(), records, page.owner);
  for (const JournalRecord& record : page.records) write_record(memory.data(), record);
  return memory;
}

bool visit_journal(const std::byte* bytes, std::size_t size, const HearRecord& hear) {
  auto* memory = const_cast<std::byte*>(bytes);
  const Header* header = header_in(memory, size);
  if (header == nullptr) return false;
  const JournalOwner owner = owner_of(*header);
  const std::uint64_t written = header->written.load(std::memory_order_acquire);
  for (std::uint64_t number = written - std::min(written, header->records); number < written; ++number) {
    JournalRecord record;
    if (read_slot(slot_of(memory, number % header->records), number, record)) hear(owner, record);
  }
  return true;
}

}  // namespace troupe
