// Recycled: memory that goes round. What a message or a segment needs for a moment (its ops, its header, a place in a
// map) is needed again for the next, so freed blocks wait on a shelf of their size instead of going back to the system.
// Law: what lies on the shelves was once in use at the same time; nothing is fetched while a block of the size lies there.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <vector>

namespace troupe {

// Any thread may take a block and any other give it back.
void* take_block(std::size_t size);
void give_block_back(void* block, std::size_t size) noexcept;
// What a block of this size takes: its shelf's.
std::size_t block_bytes(std::size_t size);

template <typename T>
struct Recycled {
  using value_type = T;
  Recycled() = default;
  template <typename U>
  Recycled(const Recycled<U>&) noexcept {}
  T* allocate(std::size_t count) {
    return static_cast<T*>(take_block(count * sizeof(T)));  // NOLINT: T may be a pointer
  }
  void deallocate(T* block, std::size_t count) noexcept { give_block_back(block, count * sizeof(T)); }  // NOLINT
  template <typename U>
  bool operator==(const Recycled<U>&) const noexcept {
    return true;
  }
};

template <typename T>
using RecycledVector = std::vector<T, Recycled<T>>;
template <typename Key, typename Value>
using RecycledMap = std::map<Key, Value, std::less<Key>, Recycled<std::pair<const Key, Value>>>;

// For structs that are made one by one: struct Sending : RecycledObject.
struct RecycledObject {
  static void* operator new(std::size_t size) { return take_block(size); }
  static void operator delete(void* block, std::size_t size) noexcept { give_block_back(block, size); }
};

}  // namespace troupe
