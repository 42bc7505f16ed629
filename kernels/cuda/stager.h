// Stager: does what staging.h chooses. It has staging memory of a fixed size, a stream for copies in and one for copies
// out, beside the one that computes. Memory of a flight is used again when the host has seen all of the flight end, so no
// stream waits for that. What finds no room stays in pinned memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/staging.h"
#include "kernels/device.h"

namespace troupe::cuda {

// Where a device's pinned memory lies. Any thread asks; memory may outlive the device.
class PinnedMemory {
 public:
  void add(const void* data, std::size_t size);
  void remove(const void* data);
  Stretch at(std::uintptr_t address) const;  // the allocation; empty: there is none

 private:
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, std::uintptr_t> ends_;  // by where they begin
};

// Room of a fixed size, in pieces of 256 bytes, the first that fits.
class Room {
 public:
  explicit Room(std::size_t size) { free_[0] = size / kPiece * kPiece; }
  // Where a stretch of this size begins; kNone: there is none.
  std::size_t take(std::size_t size);
  void give_back(std::size_t begin);
  static constexpr std::size_t kPiece = 256, kNone = ~std::size_t{0};

 private:
  std::map<std::size_t, std::size_t> free_, taken_;  // sizes, by where they begin
};

// What a flight has staged. Nothing: both events are null.
struct Copies {
  struct One {
    Staged staged;
    std::size_t begin = 0;  // of its room
    char* at = nullptr;     // where its place's first byte stands
  };
  std::vector<One> all;
  cudaEvent_t in = nullptr, out = nullptr;  // when all have come, and gone
};

class Stager {
 public:
  // bytes: of staging memory; least: of what is worth it. Throws Error.
  Stager(std::size_t bytes, std::size_t least, std::shared_ptr<const PinnedMemory> pinned);
  ~Stager();
  Stager(const Stager&) = delete;
  Stager& operator=(const Stager&) = delete;

  // Moves operands of the segments' ops, which run in the order of `ops`, and begins the copies in.
  Copies begin(std::vector<Segment>& segments, const std::vector<const Op*>& ops);
  // REQUIRES: kernels that read them are put on a stream only when they have.
  static bool have_come(const Copies& copies);
  // Puts the copies out behind the event `over`, which the flight's kernels record.
  void send(Copies& copies, cudaEvent_t over);
  static bool have_gone(const Copies& copies);
  // REQUIRES: the flight's kernels are over and its copies have gone.
  void end(Copies& copies);

 private:
  cudaEvent_t take_event();
  std::size_t least_;
  std::shared_ptr<const PinnedMemory> pinned_;
  Room room_;
  char* memory_ = nullptr;
  cudaStream_t in_ = nullptr, out_ = nullptr;
  std::vector<cudaEvent_t> events_;  // idle
};

}  // namespace troupe::cuda
