#include "actors/board.h"

#include <algorithm>
#include <new>
#include <tuple>

#include "kernels/base/check.h"

namespace troupe {

namespace {

constexpr std::array<char, 8> kMagic = {'T', 'R', 'B', 'O', 'A', 'R', 'D', '\0'};
constexpr std::uint32_t kVersion = 1;

struct Slot {
  BoardHandling handling;
  BoardCell<BoardActor> cell;
};
struct Layout {
  BoardHeader header;
  BoardCell<BoardNode> node;
};

Slot& slot_of(std::byte* memory, std::size_t actor) {
  return *std::launder(reinterpret_cast<Slot*>(memory + sizeof(Layout) + actor * sizeof(Slot)));
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

const char* kind_of_index(std::size_t index) {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> all;
    [&]<std::size_t... I>(std::index_sequence<I...>) { (all.push_back(kind_of(Message(std::in_place_index<I>))), ...); }
    (std::make_index_sequence<std::variant_size_v<Message>>());
    return all;
  }();
  return index < names.size() ? names[index] : "an unknown message";
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
  }
  const BoardHandling& h = slot.handling;
  const std::uint32_t kind = h.kind.load(std::memory_order_acquire);
  actor.handled = h.handled.load(std::memory_order_relaxed);
  if (kind == 0) return actor;
  actor.handling = kind_of_index(kind - 1);
  actor.handling_from = {static_cast<Role>(h.from_role.load(std::memory_order_relaxed)),
                         h.from_index.load(std::memory_order_relaxed)};
  actor.handling_since_us = h.since_us.load(std::memory_order_relaxed);
  return actor;
}

}  // namespace

std::size_t board_size(std::size_t actors_count) { return sizeof(Layout) + actors_count * sizeof(Slot); }

std::uint64_t BoardPage::progress() const {
  std::uint64_t sum = node.finished + node.disk_done;
  for (const Actor& actor : actors) sum += actor.handled;
  return sum;
}

std::optional<BoardPage> read_board(const std::byte* bytes, std::size_t size) {
  if (size < board_size(0)) return std::nullopt;
  auto* memory = const_cast<std::byte*>(bytes);  // atomics are read through references that could write
  const BoardHeader& header = layout_of(memory).header;
  if (header.magic != kMagic || header.version != kVersion || header.size != size ||
      size != board_size(header.actors_count))
    return std::nullopt;
  BoardPage page;
  page.pid = header.pid;
  page.pid_start = header.pid_start;
  page.launcher_pid = header.launcher_pid;
  page.turn_us = header.turn_us.load(std::memory_order_relaxed);
  const auto node = layout_of(memory).node.read();
  if (!node) return std::nullopt;
  page.node = *node;
  for (std::size_t i = 0; i < header.actors_count; ++i) page.actors.push_back(actor_of(slot_of(memory, i)));
  return page;
}

Board::Board(std::byte* memory, std::size_t actors_count, const BoardOwner& owner)
    : memory_(memory), told_(actors_count) {
  auto* layout = new (memory) Layout{};
  for (std::size_t i = 0; i < actors_count; ++i) new (memory + sizeof(Layout) + i * sizeof(Slot)) Slot{};
  BoardHeader& h = layout->header;
  h.version = kVersion;
  h.actors_count = static_cast<std::uint32_t>(actors_count);
  h.size = board_size(actors_count);
  h.pid = owner.pid;
  h.pid_start = owner.pid_start;
  h.launcher_pid = owner.launcher_pid;
  h.magic = kMagic;
}

BoardHeader& Board::header() const { return layout_of(memory_).header; }

void Board::begin(std::uint32_t actor, const Envelope& envelope, std::int64_t now_us) {
  BoardHandling& h = slot_of(memory_, actor).handling;
  h.from_role.store(static_cast<std::uint32_t>(envelope.from.role), std::memory_order_relaxed);
  h.from_index.store(envelope.from.index, std::memory_order_relaxed);
  h.since_us.store(now_us, std::memory_order_relaxed);
  h.kind.store(static_cast<std::uint32_t>(envelope.message.index()) + 1, std::memory_order_release);
}

void Board::end(std::uint32_t actor) {
  BoardHandling& h = slot_of(memory_, actor).handling;
  h.handled.store(h.handled.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  h.kind.store(0, std::memory_order_release);
}

void Board::publish(const BoardNode& node) { layout_of(memory_).node.publish(node); }

void Board::publish(std::uint32_t actor, const Address& address, std::uint32_t attempt, std::int64_t version,
                    Waits waits, std::int64_t now_us) {
  std::sort(waits.begin(), waits.end(), before);
  keep_times(waits, told_.at(actor), now_us);
  told_[actor] = waits;
  std::stable_sort(waits.begin(), waits.end(), [](const Wait& a, const Wait& b) { return a.since_us < b.since_us; });
  BoardActor page;
  page.role = static_cast<std::uint32_t>(address.role);
  page.index = address.index;
  page.attempt = attempt;
  page.version = version;
  page.waits_count = static_cast<std::uint32_t>(waits.size());
  for (std::size_t i = 0; i < std::min(waits.size(), kBoardWaitsMax); ++i) page.waits[i] = packed(waits[i]);
  slot_of(memory_, actor).cell.publish(page);
}

}  // namespace troupe
