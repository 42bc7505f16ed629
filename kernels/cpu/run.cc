#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "kernels/cpu/kernels.h"
#include "kernels/shapes.h"

namespace troupe::cpu {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kFirstBlock = std::size_t{1} << 21;
}  // namespace

void run(const Op& op, Scratch& scratch) {
  check(op);
  std::visit(
      [&](const auto& one) {
        scratch.reset();
        run(one, scratch);
      },
      op);
}

void Scratch::Free::operator()(void* data) const { std::free(data); }

std::size_t Scratch::size() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

// An op that outgrew the arena left several blocks: one block of their sum serves the next op of its kind.
void Scratch::reset() {
  if (blocks_.size() > 1) {
    const std::size_t total = size();
    blocks_.clear();
    add_block(total);
  }
  if (!blocks_.empty()) blocks_[0].used = 0;
}

void* Scratch::take_bytes(std::size_t size) {
  size = (size + kAlignment - 1) / kAlignment * kAlignment;
  if (blocks_.empty() || blocks_.back().used + size > blocks_.back().size) add_block(std::max(size, kFirstBlock));
  Block& block = blocks_.back();
  void* data = static_cast<char*>(block.data.get()) + block.used;
  block.used += size;
  return data;
}

// Blocks start on a huge page where the kernel has one to give: packed panels then cost one TLB entry.
void Scratch::add_block(std::size_t size) {
  size = (size + kFirstBlock - 1) / kFirstBlock * kFirstBlock;
  void* data = std::aligned_alloc(kFirstBlock, size);
  if (data == nullptr) throw std::bad_alloc();
  madvise(data, size, MADV_HUGEPAGE);
  blocks_.push_back({std::unique_ptr<void, Free>(data), size, 0});
}

}  // namespace troupe::cpu
