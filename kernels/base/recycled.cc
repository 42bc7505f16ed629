// The shelves: one a size class, each a list through the free blocks themselves.
#include "kernels/base/recycled.h"

#include <array>
#include <atomic>
#include <bit>
#include <new>
#include <thread>

namespace troupe {
namespace {

constexpr std::size_t kSmallest = 32, kLargest = std::size_t{1} << 16;  // larger blocks are rare: the system's
constexpr std::size_t kShelves = std::bit_width(kLargest / kSmallest);

struct Block {
  Block* next;
};

// Held for a few instructions only, so that waiting for it is not worth a system call.
class Shelf {
 public:
  void* take() {
    lock();
    Block* const block = first_;
    if (block != nullptr) first_ = block->next;
    unlock();
    return block;
  }
  void put(void* memory) {
    auto* const block = static_cast<Block*>(memory);
    lock();
    block->next = first_;
    first_ = block;
    unlock();
  }

 private:
  void lock() {
    while (taken_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { taken_.store(false, std::memory_order_release); }
  std::atomic<bool> taken_ = false;
  Block* first_ = nullptr;
};

// Like the system's own allocator these are the process's, and are never destroyed: blocks come back until the very end.
constinit std::array<Shelf, kShelves> shelves;

std::size_t shelf_of(std::size_t size) {
  return size <= kSmallest ? 0 : static_cast<std::size_t>(std::bit_width((size - 1) / kSmallest));
}

}  // namespace

std::size_t block_bytes(std::size_t size) { return size > kLargest ? size : kSmallest << shelf_of(size); }

void* take_block(std::size_t size) {
  if (size > kLargest) return ::operator new(size);
  const std::size_t shelf = shelf_of(size);
  void* const block = shelves[shelf].take();
  return block != nullptr ? block : ::operator new(kSmallest << shelf);
}

void give_block_back(void* block, std::size_t size) noexcept {
  if (block == nullptr) return;
  if (size > kLargest)
    ::operator delete(block);
  else
    shelves[shelf_of(size)].put(block);
}

}  // namespace troupe
