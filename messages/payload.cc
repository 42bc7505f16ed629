// The pool of payload buffers. Law: what it holds, idle buffers included, never exceeds the most that was ever in use
// at once (or kHeldMin, if that is more), counted in whole size classes.
#include "messages/payload.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/recycled.h"

namespace troupe {
namespace {

constexpr std::size_t kPage = PayloadPool::kPage, kHugePage = std::size_t{1} << 21;
constexpr std::size_t kHeldMin = std::size_t{8} << 20;

// Powers of two with four steps between, in whole pages: 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, ... KiB.
std::size_t class_of(std::size_t size) {
  if (size <= kPage) return kPage;
  const std::size_t step = std::max(kPage, std::bit_floor(size - 1) / 4);
  return (size + step - 1) / step * step;
}

}  // namespace

struct PayloadPool::Shelves {
  using Buffer = std::shared_ptr<std::byte>;
  explicit Shelves(Source from) : source(std::move(from)) {}

  const Source source;
  mutable std::mutex mutex;
  std::map<std::size_t, std::vector<Buffer>> idle;  // by size class; an empty shelf stays
  std::size_t in_use = 0, idle_bytes = 0, peak = 0;
  std::size_t asked = 0, asked_peak = 0;  // before rounding

  // size: a whole class; wanted: what was asked for.
  Buffer take(std::size_t size, std::size_t wanted) {
    const std::lock_guard lock(mutex);
    Buffer buffer;
    if (auto shelf = idle.find(size); shelf != idle.end() && !shelf->second.empty()) {
      buffer = std::move(shelf->second.back());
      shelf->second.pop_back();
      idle_bytes -= size;
    } else {
      buffer = source(size);
      if (!buffer) throw std::bad_alloc();
    }
    in_use += size;
    peak = std::max(peak, in_use);
    asked += wanted;
    asked_peak = std::max(asked_peak, asked);
    if (in_use + idle_bytes > std::max(peak, kHeldMin)) shrink(std::max(peak, kHeldMin));
    return buffer;
  }

  void give_back(Buffer buffer, std::size_t size, std::size_t wanted) {
    const std::lock_guard lock(mutex);
    in_use -= size;
    asked -= wanted;
    idle_bytes += size;
    idle[size].push_back(std::move(buffer));
  }

 private:
  // Frees idle buffers, largest first, until no more than `held_max` bytes are held.
  void shrink(std::size_t held_max) {
    for (auto shelf = idle.rbegin(); shelf != idle.rend(); ++shelf)
      for (; !shelf->second.empty() && in_use + idle_bytes > held_max; shelf->second.pop_back())
        idle_bytes -= shelf->first;
  }
};

PayloadPool::PayloadPool(Source source, bool on_device)
    : shelves_(std::make_shared<Shelves>(std::move(source))), on_device_(on_device) {}

// Another process reads them a page at a time: large ones in large pages, where the system has them. What is given back
// goes back to the system: an allocator would keep it, and the plan knows nothing of that.
std::shared_ptr<std::byte> PayloadPool::process_memory(std::size_t size) {
  const std::size_t aligned = size % kHugePage == 0 ? kHugePage : kPage, mapped = size + aligned - kPage;
  void* const begin = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED) return nullptr;
  const auto past = reinterpret_cast<std::uintptr_t>(begin) % aligned;
  auto* const buffer = static_cast<std::byte*>(begin) + (past == 0 ? 0 : aligned - past);
  if (aligned == kHugePage) madvise(buffer, size, MADV_HUGEPAGE);
  return {buffer, [begin, mapped](std::byte*) { munmap(begin, mapped); }};
}

Payload PayloadPool::take(std::size_t size) {
  if (size == 0) return {};
  const std::size_t rounded = class_of(size);
  Shelves::Buffer buffer = shelves_->take(rounded, size);
  std::byte* const data = buffer.get();
  // The deleter shares the shelves: a buffer may outlive the pool.
  auto give_back = [shelves = shelves_, buffer = std::move(buffer), rounded, size](std::byte*) mutable {
    shelves->give_back(std::move(buffer), rounded, size);
  };
  return {.data = {data, std::move(give_back), Recycled<std::byte>()}, .size = size, .on_device = on_device_};
}

std::size_t PayloadPool::bytes_in_use() const {
  const std::lock_guard lock(shelves_->mutex);
  return shelves_->in_use;
}

std::size_t PayloadPool::asked_peak() const {
  const std::lock_guard lock(shelves_->mutex);
  return shelves_->asked_peak;
}

std::size_t PayloadPool::bytes_peak() const {
  const std::lock_guard lock(shelves_->mutex);
  return shelves_->peak;
}

Payload concatenate(std::span<const Payload> pieces, PayloadPool& pool, std::size_t room) {
  const bool lone = pieces.size() == 1 && room == 0 && !pieces[0].on_device;
  if (lone && reinterpret_cast<std::uintptr_t>(pieces[0].data.get()) % kPayloadAlignment == 0) return pieces[0];
  std::size_t size = room;
  for (const Payload& piece : pieces) {
    CHECK(!piece.on_device, "{} bytes of device memory were to be copied by the processor", piece.size);
    size += piece.size;
  }
  Payload whole = pool.take(size);
  std::byte* at = whole.data.get() + room;
  for (const Payload& piece : pieces)
    if (piece.size > 0) at = std::copy_n(piece.data.get(), piece.size, at);
  return whole;
}

}  // namespace troupe
