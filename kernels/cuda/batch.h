// Neighbouring ops of a segment in one launch, where each by itself is little work: what they do travels as the kernel's
// parameter, and its blocks of threads are dealt out to them in order. They run at the same time, so none may touch what
// an earlier one writes.
#pragma once

#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace troupe::cuda {

constexpr std::size_t kParametersMax = 4096;  // bytes that a kernel's parameters may take

template <typename Item, int most>
struct Batch {
  Item items[most];
  unsigned first_block[most + 1];  // of each item, and where the last ends
  int count = 0;

  Batch() { first_block[0] = 0; }
  bool full() const { return count == most; }
  void add(const Item& item, unsigned blocks) {
    items[count] = item;
    first_block[count + 1] = first_block[count] + blocks;
    ++count;
  }
  unsigned blocks() const { return first_block[count]; }

  // Whose block this is.
  __device__ int item_of(unsigned block) const {
    int low = 0, high = count;  // the item is one of low .. high - 1
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_block[middle] <= block ? low : high) = middle;
    }
    return low;
  }
};

// What the ops of a batch write, as one stretch of memory: those that follow each other there make it no larger than it is.
class Written {
 public:
  bool touches(const Tensor& x) const { return x && begin_of(x) < end_ && end_of(x) > begin_; }
  void add(const Tensor& x) {
    if (!x) return;
    begin_ = end_ == 0 ? begin_of(x) : std::min(begin_, begin_of(x));
    end_ = std::max(end_, end_of(x));
  }

 private:
  static std::uintptr_t begin_of(const Tensor& x) { return reinterpret_cast<std::uintptr_t>(x.data); }
  static std::uintptr_t end_of(const Tensor& x) {
    return begin_of(x) + static_cast<std::size_t>((x.rows - 1) * x.stride + x.cols) * bytes_of(x.dtype);
  }
  std::uintptr_t begin_ = 0, end_ = 0;
};

// May an op with these operands join those that wrote so far?
template <std::size_t kinds>
bool joins(const Written (&written)[kinds], std::initializer_list<Tensor> operands) {
  for (const Written& stretch : written)
    for (const Tensor& x : operands)
      if (stretch.touches(x)) return false;
  return true;
}

}  // namespace troupe::cuda
