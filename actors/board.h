// Board: what a node and its actors are at, in memory that another process may read at any moment, also while the writer
// is stopped inside a write or stuck in a handler. Whoever makes the node gives the memory: a mapped file in the run's
// folder, or plain bytes. The law: a page is written aside and then published by one store, so what a reader sees was
// once true as a whole; what an actor handles right now stands beside it in single words.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "actors/rules/bill.h"
#include "actors/wait.h"
#include "kernels/device.h"

namespace troupe {

constexpr std::size_t kBoardWaitsMax = 32;  // of an actor, the oldest
constexpr std::size_t kBoardCreditsMax = 32;
constexpr std::size_t kBoardPeersMax = 64;
constexpr std::size_t kBoardMailMax = 64;  // messages of which it is known when they came

struct BoardPeer {
  std::uint32_t node = 0, incarnation = 0;
  std::int64_t heard_us = 0;
  std::uint32_t unacknowledged = 0, early = 0;  // frames; early: behind one that is missing
  std::int64_t missing_since_us = 0;            // 0: none is missing
};

struct BoardNode {
  std::uint32_t node = 0, incarnation = 0;
  std::int64_t tick_us = 0;                    // when this page was written
  std::uint64_t pending = 0, finished = 0;     // segments
  std::uint64_t disk_jobs = 0, disk_done = 0;  // done: outcomes
  std::int64_t finished_us = 0, disk_us = 0;   // when the last segment finished, when the disk last told something
  std::uint32_t closed = 0, peers_count = 0;   // closed: it came to its own end
  std::uint64_t ready = 0;                     // segments that no thread has taken yet
  std::uint64_t actors_bytes = 0;              // what actors have allocated
  std::uint64_t payload_bytes = 0, payload_peak = 0;
  std::array<std::int64_t, kBins>
      bill_us{};  // thread-microseconds by bin, since the device began; about one second old
  std::array<BoardPeer, kBoardPeersMax> peers{};
};

struct BoardWait {
  std::uint8_t what = 0, kind = 0, direction = 0, holder_role = 0;
  std::uint32_t holder_index = 0, attempt = 0;
  std::int32_t microbatch = 0, layer = 0, chunk = 0;
  std::int64_t step = 0, since_us = 0;
};

struct BoardCredits {
  std::uint32_t role = 0, index = 0;  // whom it may send to
  std::int32_t free = 0, of = 0;
};

struct BoardActor {
  std::uint32_t role = 0, index = 0, attempt = 0, waits_count = 0;  // more than kBoardWaitsMax: the others are left out
  std::int64_t version = 0;
  std::uint64_t bytes = 0;  // that it has allocated
  std::uint64_t credits_count = 0;
  std::array<BoardWait, kBoardWaitsMax> waits{};
  std::array<BoardCredits, kBoardCreditsMax> credits{};
};

// A value that one writes and others read: two copies, of which a number says which is whole.
template <typename Value>
class BoardCell {
 public:
  static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) % 8 == 0);
  void publish(const Value& value) {
    const std::uint64_t next = published_.load(std::memory_order_relaxed) + 1;
    std::array<std::uint64_t, kWords> words{};
    std::memcpy(words.data(), &value, sizeof value);
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t i = 0; i < kWords; ++i) copies_[next % 2][i].store(words[i], std::memory_order_relaxed);
    published_.store(next, std::memory_order_release);
  }
  std::uint64_t number() const { return published_.load(std::memory_order_acquire); }
  // Empty: nothing was published, or the writer was faster each time.
  std::optional<Value> read() const {
    for (int tries = 0; tries < 1000; ++tries) {
      const std::uint64_t number = published_.load(std::memory_order_acquire);
      if (number == 0) return std::nullopt;
      std::array<std::uint64_t, kWords> words{};
      for (std::size_t i = 0; i < kWords; ++i) words[i] = copies_[number % 2][i].load(std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (published_.load(std::memory_order_relaxed) != number) continue;
      Value value;
      std::memcpy(static_cast<void*>(&value), words.data(), sizeof value);
      return value;
    }
    return std::nullopt;
  }

 private:
  static constexpr std::size_t kWords = sizeof(Value) / 8;
  std::atomic<std::uint64_t> published_;
  std::array<std::array<std::atomic<std::uint64_t>, kWords>, 2> copies_;
};

// What an actor is at, in single words. What it handles is set before its handler is called, cleared when it returns.
struct BoardWords {
  std::atomic<std::uint32_t> kind;  // of the message plus one; 0: none
  std::atomic<std::uint32_t> from_role, from_index;
  std::atomic<std::uint32_t> unused;
  std::atomic<std::int64_t> since_us;
  std::atomic<std::uint64_t> arrived, handled;                      // messages; those between wait
  std::atomic<std::int64_t> handling_us;                            // in handlers, all in all
  std::atomic<std::uint64_t> submitted, finished;                   // segments
  std::atomic<std::int64_t> computing_us;                           // of threads that ran its segments
  std::array<std::atomic<std::int64_t>, kBoardMailMax> arrived_us;  // of the last messages, by their number
};

// What a compute thread runs, likewise.
struct BoardThread {
  std::atomic<std::uint32_t> actor;  // its place plus one; 0: none
  std::atomic<std::uint32_t> segment_class;
  std::atomic<std::int64_t> step;
  std::atomic<std::int32_t> microbatch, layer;
  std::atomic<std::int64_t> since_us;
};

struct BoardHeader {
  std::array<char, 8> magic;
  std::uint32_t version, actors_count, threads_count;
  std::atomic<std::uint32_t> port;  // of the node's inspector thread, on this machine; 0: none
  std::uint64_t size;
  std::int64_t pid, pid_start, launcher_pid;  // pid_start: when the process began, as its system counts; tells reuse
  std::atomic<std::int64_t> turn_us;          // when the loop last began a turn
};

std::size_t board_size(std::size_t actors_count, std::size_t threads_count);

// What the reader saw of the process itself.
enum class Life : std::uint8_t { running, stopped, dead };

// What a reader makes of a board: values.
struct BoardPage {
  Life life = Life::running, launcher = Life::running;
  std::int64_t pid = 0, pid_start = 0, launcher_pid = 0, turn_us = 0;
  std::uint32_t port = 0;
  BoardNode node;
  struct Actor {
    Address address;
    std::uint32_t attempt = 0;
    std::int64_t version = 0;
    std::uint64_t handled = 0;
    std::string handling;  // kind of the message; empty: none
    Address handling_from;
    std::int64_t handling_since_us = 0;
    Waits waits;
    bool more = false;  // it waits for more than the board holds
    std::uint64_t arrived = 0;
    std::int64_t oldest_us = 0;  // when the oldest message that waits came; of more than kBoardMailMax: at the latest
    std::int64_t handling_us = 0, computing_us = 0;  // all in all
    std::uint64_t segments = 0;                      // submitted and not finished
    std::uint64_t bytes = 0;
    std::vector<Credits> credits;
  };
  std::vector<Actor> actors;
  struct Thread {
    Address actor;
    bool computes = false;  // otherwise the rest says nothing
    SegmentKey key;
    std::int64_t since_us = 0;
  };
  std::vector<Thread> threads;
  // Changes whenever anything was handled, finished or written.
  std::uint64_t progress() const;
};
// Empty: these bytes are no board, or of another version.
std::optional<BoardPage> read_board(const std::byte* bytes, std::size_t size);

// A copy of which every page is whole, though somebody writes meanwhile.
std::vector<std::byte> copy_board(const std::byte* bytes, std::size_t size);

// The writer's side. REQUIRES: `memory` has board_size(actors_count) zeroed bytes, aligned to 8, and outlives the board.
struct BoardOwner {
  std::int64_t pid = 0, pid_start = 0, launcher_pid = 0;
};
class Board {
 public:
  Board(std::byte* memory, std::size_t actors_count, std::size_t threads_count, const BoardOwner& owner);

  void listens(std::uint32_t port) { header().port.store(port, std::memory_order_relaxed); }
  void turn(std::int64_t now_us) { header().turn_us.store(now_us, std::memory_order_relaxed); }
  // A message is in the actor's mailbox.
  void arrived(std::uint32_t actor, std::int64_t now_us);
  // Around each handler.
  void begin(std::uint32_t actor, const Envelope& envelope, std::int64_t now_us);
  void end(std::uint32_t actor, std::int64_t took_us);
  void submitted(std::uint32_t actor);
  // By a compute thread.
  void computes(std::size_t thread, const std::vector<Segment>& segments, std::int64_t now_us);
  void computed(std::size_t thread, const std::vector<Segment>& segments, std::int64_t took_us);

  void publish(const BoardNode& node);
  // Waits get the time at which they were first told; those that were told twice and are no more are told to `over`.
  using Over = std::function<void(const Wait&)>;
  struct Told {
    Address address;
    std::uint32_t attempt = 0;
    std::int64_t version = 0;
    std::uint64_t bytes = 0;
  };
  void publish(std::uint32_t actor, const Told& told, Waits waits, const std::vector<Credits>& credits,
               std::int64_t now_us, const Over& over = {});

 private:
  BoardHeader& header() const;
  std::byte* memory_;
  std::vector<Waits> told_;            // by actor, sorted
  std::vector<std::int64_t> told_us_;  // when, likewise
};

}  // namespace troupe
