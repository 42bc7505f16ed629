#include <algorithm>

#include "kernels/cuda/arena.h"
#include "kernels/cuda/kernels.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {
constexpr std::size_t kAlignment = 256, kFirstBlock = std::size_t{1} << 22;
}  // namespace

void run(const Op& op, Queue& queue) {
  check(op);
  std::visit([&](const auto& one) { run(one, queue); }, op);
}

std::size_t run_next(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  for (const auto together : {run_weight_gradients, run_norm_and_copy, run_rotations, run_adds, run_fills,
                              run_square_sums, run_updates, run_quantizations})
    if (const std::size_t count = together(ops, first, queue); count > 0) return count;
  run(*ops[first], queue);
  return 1;
}

Arena::~Arena() {
  for (const Block& block : blocks_) cudaFreeAsync(block.data, stream_);
}

std::size_t Arena::size() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

// An op that outgrew the arena left several blocks: one block of their sum serves the next op of its kind.
void Arena::reset() {
  if (blocks_.size() > 1) {
    const std::size_t total = size();
    for (const Block& block : blocks_) must(cudaFreeAsync(block.data, stream_), "freeing working memory");
    blocks_.clear();
    take_bytes(total);
  }
  if (!blocks_.empty()) blocks_[0].used = 0;
}

void* Arena::take_bytes(std::size_t size) {
  size = std::max(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
  if (blocks_.empty() || blocks_.back().used + size > blocks_.back().size) {
    Block block{nullptr, std::max(size, kFirstBlock), 0};
    must(cudaMallocAsync(&block.data, block.size, stream_), "taking working memory");
    blocks_.push_back(block);
  }
  Block& block = blocks_.back();
  void* data = static_cast<char*>(block.data) + block.used;
  block.used += size;
  return data;
}

}  // namespace troupe::cuda
