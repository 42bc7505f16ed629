#include "actors/board.h"

#include <algorithm>
#include <new>
#include <tuple>

namespace troupe {

namespace {

constexpr std::array<char, 8> kMagic = {'T', 'R', 'B', 'O', 'A', 'R', 'D', '\0'};
constexpr std::uint32_t kVersion = 2;

struct Slot {
  BoardWords words;
  BoardCell<BoardActor> cell;
};
struct Layout {
  BoardHeader header;
  BoardCell<BoardNode> node;
};

Slot& slot_of(std::byte* memory, std::size_t actor) {
  return *std::launder(reinterpret_cast<Slot*>(memory + sizeof(Layout) + actor * sizeof(Slot)));
}
BoardThread& thread_of(std::byte* memory, std::size_t actors_count, std::size_t thread) {
  std::byte* const begin = memory + sizeof(Layout) + actors_count * sizeof(Slot);
  return *std::launder(reinterpret_cast<BoardThread*>(begin + thread * sizeof(BoardThread)));
}
Layout& layout_of(std::byte* memory) { return *std::launder(reinterpret_cast<Layout*>(memory)); }

auto order_of(const Wait& wait) { return std::tie(wait.what, wait.holder, wait.item); }
bool before(const Wait& a, const Wait& b) { return order_of(a) < order_of(b); }

// Both are sorted: who waited for the same before keeps the time.
void keep_times(Waits& waits, const Waits& told, std::int64_t now_us) {
  auto old = told.begin();
  for (Wait& wait : waits) {
    while (old != told.end() && before(*old, wait)) ++old;
    wait.since_us = old != told.end() && !before(wait, *old) ? old->since_us : now_us;
  }
}

// Both are sorted. Of those that nobody waits for any more, those that had been there for a while at `told_us`.
void tell_over(const Waits& told, std::int64_t told_us, const Waits& waits, const Board::Over& over) {
  auto now = waits.begin();
  for (const Wait& wait : told) {
    while (now != waits.end() && before(*now, wait)) ++now;
    if (wait.since_us < told_us && (now == waits.end() || before(wait, *now))) over(wait);
  }
}

BoardWait packed(const Wait& w) {
  return {static_cast<std::uint8_t>(w.what),
          static_cast<std::uint8_t>(w.item.kind),
          static_cast<std::uint8_t>(w.item.direction),
          static_cast<std::uint8_t>(w.holder.role),
          w.holder.index,
          w.item.attempt,
          w.item.microbatch,
          w.item.layer,
          w.item.chunk,
          w.item.step,
          w.since_us};
}

Wait unpacked(const BoardWait& w) {
  const WorkKey item{static_cast<WorkKind>(w.kind),
                     static_cast<Direction>(w.direction),
                     w.step,
                     w.attempt,
                     w.microbatch,
                     w.layer,
                     w.chunk};
  return {static_cast<Awaited>(w.what), {static_cast<Role>(w.holder_role), w.holder_index}, item, w.since_us};
}

void count_work(const BoardWords& words, BoardPage::Actor& actor) {
  actor.handled = words.handled.load(std::memory_order_relaxed);
  actor.arrived = std::max(actor.handled, words.arrived.load(std::memory_order_relaxed));
  if (actor.arrived > actor.handled) {
    const std::uint64_t known = std::max(actor.handled, actor.arrived - std::min(actor.arrived, kBoardMailMax));
    actor.oldest_us = words.arrived_us[known % kBoardMailMax].load(std::memory_order_relaxed);
  }
  actor.handling_us = words.handling_us.load(std::memory_order_relaxed);
  actor.computing_us = words.computing_us.load(std::memory_order_relaxed);
  const std::uint64_t finished = words.finished.load(std::memory_order_relaxed);
  actor.segments = std::max(finished, words.submitted.load(std::memory_order_relaxed)) - finished;
}

BoardPage::Actor actor_of(const Slot& slot) {
  BoardPage::Actor actor;
  const auto told = slot.cell.read();
  if (told) {
    actor.address = {static_cast<Role>(told->role), told->index};
    actor.attempt = told->attempt;
    actor.version = told->version;
    actor.more = told->waits_count > kBoardWaitsMax;
    for (std::size_t i = 0; i < std::min<std::size_t>(told->waits_count, kBoardWaitsMax); ++i)
      if (told->waits[i].what < kAwaited) actor.waits.push_back(unpacked(told->waits[i]));
    actor.bytes = told->bytes;
    for (std::size_t i = 0; i < std::min<std::size_t>(told->credits_count, kBoardCreditsMax); ++i) {
      const BoardCredits& c = told->credits[i];
      actor.credits.push_back({{static_cast<Role>(c.role), c.index}, c.free, c.of});
    }
  }
  const BoardWords& h = slot.words;
  const std::uint32_t kind = h.kind.load(std::memory_order_acquire);
  count_work(h, actor);
  if (kind == 0) return actor;
  actor.handling = kind_name(kind - 1);
  actor.handling_from = {static_cast<Role>(h.from_role.load(std::memory_order_relaxed)),
                         h.from_index.load(std::memory_order_relaxed)};
  actor.handling_since_us = h.since_us.load(std::memory_order_relaxed);
  return actor;
}

BoardPage::Thread thread_page(const BoardThread& thread, const std::vector<BoardPage::Actor>& actors) {
  const std::uint32_t actor = thread.actor.load(std::memory_order_acquire);
  if (actor == 0 || actor > actors.size()) return {};
  BoardPage::Thread page{actors[actor - 1].address, true, {}, thread.since_us.load(std::memory_order_relaxed)};
  page.key.segment_class = static_cast<SegmentClass>(thread.segment_class.load(std::memory_order_relaxed));
  page.key.step = thread.step.load(std::memory_order_relaxed);
  page.key.microbatch = thread.microbatch.load(std::memory_order_relaxed);
  page.key.layer = thread.layer.load(std::memory_order_relaxed);
  return page;
}

}  // namespace

std::size_t board_size(std::size_t actors_count, std::size_t threads_count) {
  return sizeof(Layout) + actors_count * sizeof(Slot) + threads_count * sizeof(BoardThread);
}

std::uint64_t BoardPage::progress() const {
  std::uint64_t sum = node.finished + node.disk_done;
  for (const Actor& actor : actors) sum += actor.handled;
  return sum;
}

std::optional<BoardPage> read_board(const std::byte* bytes, std::size_t size) {
  if (size < board_size(0, 0)) return std::nullopt;
  auto* memory = const_cast<std::byte*>(bytes);  // atomics are read through references that could write
  const BoardHeader& header = layout_of(memory).header;
  if (header.magic != kMagic || header.version != kVersion || header.size != size ||
      size != board_size(header.actors_count, header.threads_count))
    return std::nullopt;
  BoardPage page;
  page.pid = header.pid;
  page.pid_start = header.pid_start;
  page.launcher_pid = header.launcher_pid;
  page.port = header.port.load(std::memory_order_relaxed);
  page.turn_us = header.turn_us.load(std::memory_order_relaxed);
  const auto node = layout_of(memory).node.read();
  if (!node) return std::nullopt;
  page.node = *node;
  for (std::size_t i = 0; i < header.actors_count; ++i) page.actors.push_back(actor_of(slot_of(memory, i)));
  for (std::size_t i = 0; i < header.threads_count; ++i)
    page.threads.push_back(thread_page(thread_of(memory, header.actors_count, i), page.actors));
  return page;
}

// Of pages that are published once meanwhile one copy stays as it is; a node publishes all of its pages, then rests.
std::vector<std::byte> copy_board(const std::byte* bytes, std::size_t size) {
  std::vector<std::byte> copy(size);
  auto* memory = const_cast<std::byte*>(bytes);  // atomics are read through references that could write
  const BoardCell<BoardNode>& node = layout_of(memory).node;
  for (int tries = 0; tries < 1000; ++tries) {
    const std::uint64_t before = node.number();
    for (std::size_t at = 0; at + sizeof(std::uint64_t) <= size; at += sizeof(std::uint64_t)) {
      const std::uint64_t word =
          std::atomic_ref(*reinterpret_cast<std::uint64_t*>(memory + at)).load(std::memory_order_relaxed);
      std::memcpy(copy.data() + at, &word, sizeof word);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (node.number() == before) break;
  }
  return copy;
}

Board::Board(std::byte* memory, std::size_t actors_count, std::size_t threads_count, const BoardOwner& owner)
    : memory_(memory), told_(actors_count), told_us_(actors_count, 0) {
  auto* layout = new (memory) Layout{};
  for (std::size_t i = 0; i < actors_count; ++i) new (memory + sizeof(Layout) + i * sizeof(Slot)) Slot{};
  for (std::size_t i = 0; i < threads_count; ++i) new (&thread_of(memory, actors_count, i)) BoardThread{};
  BoardHeader& h = layout->header;
  h.version = kVersion;
  h.actors_count = static_cast<std::uint32_t>(actors_count);
  h.threads_count = static_cast<std::uint32_t>(threads_count);
  h.size = board_size(actors_count, threads_count);
  h.pid = owner.pid;
  h.pid_start = owner.pid_start;
  h.launcher_pid = owner.launcher_pid;
  h.magic = kMagic;
}

BoardHeader& Board::header() const { return layout_of(memory_).header; }

void Board::arrived(std::uint32_t actor, std::int64_t now_us) {
  BoardWords& words = slot_of(memory_, actor).words;
  const std::uint64_t number = words.arrived.load(std::memory_order_relaxed);
  words.arrived_us[number % kBoardMailMax].store(now_us, std::memory_order_relaxed);
  words.arrived.store(number + 1, std::memory_order_relaxed);
}

void Board::begin(std::uint32_t actor, const Envelope& envelope, std::int64_t now_us) {
  BoardWords& words = slot_of(memory_, actor).words;
  words.from_role.store(static_cast<std::uint32_t>(envelope.from.role), std::memory_order_relaxed);
  words.from_index.store(envelope.from.index, std::memory_order_relaxed);
  words.since_us.store(now_us, std::memory_order_relaxed);
  words.kind.store(static_cast<std::uint32_t>(envelope.message.index()) + 1, std::memory_order_release);
}

void Board::end(std::uint32_t actor, std::int64_t took_us) {
  BoardWords& words = slot_of(memory_, actor).words;
  words.handled.store(words.handled.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  words.handling_us.store(words.handling_us.load(std::memory_order_relaxed) + took_us, std::memory_order_relaxed);
  words.kind.store(0, std::memory_order_release);
}

void Board::submitted(std::uint32_t actor) {
  slot_of(memory_, actor).words.submitted.fetch_add(1, std::memory_order_relaxed);
}

void Board::computes(std::size_t number, const std::vector<Segment>& segments, std::int64_t now_us) {
  if (number >= header().threads_count) return;
  BoardThread& thread = thread_of(memory_, header().actors_count, number);
  const Segment& first = segments.front();
  thread.segment_class.store(static_cast<std::uint32_t>(first.key.segment_class), std::memory_order_relaxed);
  thread.step.store(first.key.step, std::memory_order_relaxed);
  thread.microbatch.store(first.key.microbatch, std::memory_order_relaxed);
  thread.layer.store(first.key.layer, std::memory_order_relaxed);
  thread.since_us.store(now_us, std::memory_order_relaxed);
  thread.actor.store(first.done.actor + 1, std::memory_order_release);
}

void Board::computed(std::size_t number, const std::vector<Segment>& segments, std::int64_t took_us) {
  if (number < header().threads_count)
    thread_of(memory_, header().actors_count, number).actor.store(0, std::memory_order_release);
  for (const Segment& segment : segments)
    slot_of(memory_, segment.done.actor).words.finished.fetch_add(1, std::memory_order_relaxed);
  slot_of(memory_, segments.front().done.actor).words.computing_us.fetch_add(took_us, std::memory_order_relaxed);
}

void Board::publish(const BoardNode& node) { layout_of(memory_).node.publish(node); }

void Board::publish(std::uint32_t actor, const Told& told, Waits waits, const std::vector<Credits>& credits,
                    std::int64_t now_us, const Over& over) {
  std::sort(waits.begin(), waits.end(), before);
  keep_times(waits, told_.at(actor), now_us);
  if (over) tell_over(told_[actor], told_us_[actor], waits, over);
  told_[actor] = waits;
  told_us_[actor] = now_us;
  std::stable_sort(waits.begin(), waits.end(), [](const Wait& a, const Wait& b) { return a.since_us < b.since_us; });
  BoardActor page;
  page.role = static_cast<std::uint32_t>(told.address.role);
  page.index = told.address.index;
  page.attempt = told.attempt;
  page.version = told.version;
  page.bytes = told.bytes;
  page.waits_count = static_cast<std::uint32_t>(waits.size());
  for (std::size_t i = 0; i < std::min(waits.size(), kBoardWaitsMax); ++i) page.waits[i] = packed(waits[i]);
  page.credits_count = credits.size();
  for (std::size_t i = 0; i < std::min(credits.size(), kBoardCreditsMax); ++i) {
    const auto& [to, free, of] = credits[i];
    page.credits[i] = {static_cast<std::uint32_t>(to.role), to.index, free, of};
  }
  slot_of(memory_, actor).cell.publish(page);
}

}  // namespace troupe
