// The CPU's kernels: one run() per op, single-threaded, on the memory of one compute thread.
// run(const Op&) checks the shapes first (kernels/shapes.h, always on). Every run() keeps the laws of kernels/op.h to
// the bit: the results don't depend on the number of rows, on the blocking, or on the width of the processor's vectors.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/op.h"

namespace troupe::cpu {

// Working memory of one compute thread: an arena that only grows. What an op takes lives until the next reset().
// Arrays are aligned to 64 bytes and not initialised.
class Scratch {
 public:
  void reset();
  template <typename T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  std::size_t size() const;

 private:
  struct Free {
    void operator()(void* data) const;
  };
  struct Block {
    std::unique_ptr<void, Free> data;
    std::size_t size = 0, used = 0;
  };
  void* take_bytes(std::size_t size);
  void add_block(std::size_t size);
  std::vector<Block> blocks_;
};

void run(const Op& op, Scratch& scratch);

// What run(const Op&) comes to. REQUIRES: the shapes are checked; whoever hasn't done that calls run(Op{...}).
void run(const Product& op, Scratch& scratch);
void run(const GroupedProduct& op, Scratch& scratch);
void run(const Norm& op, Scratch& scratch);
void run(const NormBackward& op, Scratch& scratch);
void run(const Rope& op, Scratch& scratch);
void run(const Attention& op, Scratch& scratch);
void run(const AttentionBackward& op, Scratch& scratch);
void run(const SwiGlu& op, Scratch& scratch);
void run(const SwiGluBackward& op, Scratch& scratch);
void run(const Router& op, Scratch& scratch);
void run(const RouterBackward& op, Scratch& scratch);
void run(const Gather& op, Scratch& scratch);
void run(const Scatter& op, Scratch& scratch);
void run(const Combine& op, Scratch& scratch);
void run(const ScaleRows& op, Scratch& scratch);
void run(const Embedding& op, Scratch& scratch);
void run(const EmbeddingGradient& op, Scratch& scratch);
void run(const CrossEntropy& op, Scratch& scratch);
void run(const Copy& op, Scratch& scratch);
void run(const Add& op, Scratch& scratch);
void run(const Fill& op, Scratch& scratch);
void run(const SumRows& op, Scratch& scratch);
void run(const SumSquares& op, Scratch& scratch);
void run(const AdamW& op, Scratch& scratch);
void run(const Initialize& op, Scratch& scratch);
void run(const Sample& op, Scratch& scratch);
void run(const PolicyLoss& op, Scratch& scratch);
void run(const Digest& op, Scratch& scratch);
void run(const Quantize& op, Scratch& scratch);

}  // namespace troupe::cpu
