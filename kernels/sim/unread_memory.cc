#include "kernels/sim/unread_memory.h"

#include <sys/mman.h>

#include "kernels/base/check.h"

namespace troupe {

namespace {

std::byte* reservation() {
  static std::byte* const begin = [] {
    void* const data = ::mmap(nullptr, kUnreadBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(data != MAP_FAILED, "no {} bytes of address space", kUnreadBytes);
    return static_cast<std::byte*>(data);
  }();
  return begin;
}

}  // namespace

std::byte* unread_memory(std::size_t size) {
  CHECK(size <= kUnreadBytes, "a block of {} bytes, more than the reservation of {}", size, kUnreadBytes);
  return reservation();
}

std::shared_ptr<std::byte> sparse_memory(std::size_t size) {
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(data != MAP_FAILED, "no {} bytes of address space", size);
  return {static_cast<std::byte*>(data), [size](std::byte* memory) { ::munmap(memory, size); }};
}

bool is_unread(const void* data) {
  const auto* const at = static_cast<const std::byte*>(data);
  return at >= reservation() && at < reservation() + kUnreadBytes;
}

}  // namespace troupe
