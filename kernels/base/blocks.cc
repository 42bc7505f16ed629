#include "kernels/base/blocks.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/base/check.h"

namespace troupe {

std::size_t Blocks::resident() const {
  constexpr std::uintptr_t kPage = 4096;
  std::size_t bytes = 0;
  std::vector<unsigned char> pages;
  for (const auto& [data, size] : sizes_) {
    if (size < kPage) {
      bytes += size;
      continue;
    }
    const auto begin = reinterpret_cast<std::uintptr_t>(data) / kPage * kPage;
    const std::uintptr_t length = (reinterpret_cast<std::uintptr_t>(data) + size - begin + kPage - 1) / kPage * kPage;
    pages.resize(length / kPage);
    CHECK(::mincore(reinterpret_cast<void*>(begin), length, pages.data()) == 0, "a block that is not mapped");
    const auto there = std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
    bytes += std::min(size, static_cast<std::size_t>(there) * kPage);
  }
  return bytes;
}

}  // namespace troupe
