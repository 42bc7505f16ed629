// Rows that are moved from one tensor to another, converted where the types differ.
#pragma once

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace troupe::cuda {

// straight: out[j] = source[j];  gather: out[j] = source[index[j]];  scatter: out[index[j]] = source[j];
// look_up: as gather, zeros where index[j] < 0. An index that leads out of its tensor stops the kernel.
// REQUIRES: a scatter's index names no row twice (blocks run in any order).
enum class Move { straight, gather, scatter, look_up };
void move_rows(Tensor source, const Tensor& index, Tensor out, Move move, Queue& queue);

}  // namespace troupe::cuda
