// CUDA's kernels: one run() per op, which puts its kernels on a queue. Shapes were checked (kernels/shapes.h).
// The law: results don't depend on how many rows share an op, nor on the order in which blocks or threads run; there are
// no atomic additions of floating-point numbers. Where op.h says how a sum is ordered and a file here says nothing else,
// the bits are those of the CPU's kernels.
#pragma once

#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

void run(const Product& op, Queue& queue);
void run(const GroupedProduct& op, Queue& queue);
void run(const Norm& op, Queue& queue);
void run(const NormBackward& op, Queue& queue);
void run(const Rope& op, Queue& queue);
void run(const Attention& op, Queue& queue);
void run(const AttentionBackward& op, Queue& queue);
void run(const SwiGlu& op, Queue& queue);
void run(const SwiGluBackward& op, Queue& queue);
void run(const Router& op, Queue& queue);
void run(const RouterBackward& op, Queue& queue);
void run(const Gather& op, Queue& queue);
void run(const Scatter& op, Queue& queue);
void run(const Combine& op, Queue& queue);
void run(const ScaleRows& op, Queue& queue);
void run(const Embedding& op, Queue& queue);
void run(const EmbeddingGradient& op, Queue& queue);
void run(const CrossEntropy& op, Queue& queue);
void run(const Copy& op, Queue& queue);
void run(const Add& op, Queue& queue);
void run(const Fill& op, Queue& queue);
void run(const SumRows& op, Queue& queue);
void run(const SumSquares& op, Queue& queue);
void run(const AdamW& op, Queue& queue);
void run(const Initialize& op, Queue& queue);
void run(const Sample& op, Queue& queue);
void run(const PolicyLoss& op, Queue& queue);
void run(const Digest& op, Queue& queue);
void run(const Quantize& op, Queue& queue);

void run(const Op& op, Queue& queue);

// The first of ops[first], ... that are of one kind and may go together, in one launch; how many they are.
std::size_t run_weight_gradients(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
std::size_t run_adds(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
std::size_t run_rotations(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
std::size_t run_fills(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
std::size_t run_square_sums(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
std::size_t run_updates(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
std::size_t run_quantizations(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
// A norm's backward and the copy that follows it; 2, or 0.
std::size_t run_norm_and_copy(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);
// ops[first] and what goes with it in one launch; how many they are.
std::size_t run_next(const std::vector<const Op*>& ops, std::size_t first, Queue& queue);

}  // namespace troupe::cuda
