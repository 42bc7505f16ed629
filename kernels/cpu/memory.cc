#include "kernels/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/base/error.h"

namespace troupe::cpu {

namespace {

constexpr std::size_t kLine = 64, kHugePage = std::size_t{1} << 21;

[[noreturn]] void refuse(std::size_t size) {
  throw Error("can't allocate {} bytes of device memory; lower the memory that the plan shows", size);
}

// Whole huge pages, where the kernel has them: from the first boundary in a mapping that is one page longer.
Memory map_pages(std::size_t size) {
  const std::size_t padded = bytes_taken(size), mapped = padded + kHugePage;
  void* begin = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED) refuse(size);
  const std::size_t past = reinterpret_cast<std::uintptr_t>(begin) % kHugePage;
  void* data = static_cast<char*>(begin) + (kHugePage - past);
  madvise(data, padded, MADV_HUGEPAGE);
  return {std::shared_ptr<void>(begin, [mapped](void* memory) { munmap(memory, mapped); }), data, size};
}

}  // namespace

std::size_t bytes_taken(std::size_t size) {
  const std::size_t step = size >= 2 * kHugePage ? kHugePage : kLine;
  return std::max(kLine, (size + step - 1) / step * step);
}

Memory take_memory(std::size_t size) {
  if (size >= 2 * kHugePage) return map_pages(size);
  const std::size_t padded = bytes_taken(size);
  void* data = std::aligned_alloc(kLine, padded);
  if (data == nullptr) refuse(size);
  std::memset(data, 0, padded);
  return {std::shared_ptr<void>(data, [](void* memory) { std::free(memory); }), data, size};
}

}  // namespace troupe::cpu
