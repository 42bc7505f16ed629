// Neighbouring ops of a segment in one launch, where each by itself is little work: what they do travels as the kernel's
// parameter, and its blocks of threads are dealt out to them in order. They run at the same time, so none may write what
// another one touches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>

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

// One operand of a batch's ops, as one stretch of memory: those that follow each other there make it no larger than it is.
class Span {
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

// What a batch's ops touch.
template <std::size_t reads, std::size_t writes>
class Touched {
 public:
  // False: an op with these operands must wait for the batch's end.
  bool take(const Tensor (&read)[reads], const Tensor (&written)[writes]) {
    for (const Span& span : written_) {
      if (std::any_of(std::begin(read), std::end(read), [&](const Tensor& x) { return span.touches(x); })) return false;
      if (std::any_of(std::begin(written), std::end(written), [&](const Tensor& x) { return span.touches(x); }))
        return false;
    }
    for (const Span& span : read_)
      if (std::any_of(std::begin(written), std::end(written), [&](const Tensor& x) { return span.touches(x); }))
        return false;
    for (std::size_t i = 0; i < reads; ++i) read_[i].add(read[i]);
    for (std::size_t i = 0; i < writes; ++i) written_[i].add(written[i]);
    return true;
  }

 private:
  Span read_[reads], written_[writes];
};

}  // namespace troupe::cuda
