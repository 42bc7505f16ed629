// Routed experts as segments. A chunk holds rows sorted by expert; `counts` says how many each expert has.
//   forward:   y = W_down (silu(W_gate x) * W_up x)
//   backward:  dh = dy W_down; dots = <dh, h>; dh *= gate; d_gate_up by SwiGLU's backward; dx = d_gate_up W_gate|up
//   weights:   W_down += dy^T (gate h);  W_gate|up += d_gate_up^T x; rows in order, one accumulator an expert
// The gate goes to h, which is narrower than dy.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/model/layer.h"

namespace troupe {

struct ExpertTensors {
  Matrix gate_up, down;  // (2I, D), (D, I)
};

// Memory of one chunk, from its arrival until its forward answer (or stash end), or its turn in the strict sum.
struct ChunkSlot {
  bool fp8 = false;  // products read E4M3
  Tensor x;          // (R, D) act; absent where it stays as it came
  Tensor gate_up;    // (R, 2I) act; its gradient after the backward
  Tensor h, dh;      // (R, I) act; h is gate * h after the backward
  Tensor dy;         // (R, D) act; absent where it stays as it came
};

// keeps_rows: x and dy stay as they came.
ChunkSlot carve_chunk(Carver& carver, const ModelConfig& config, std::int64_t rows, Dtype act, bool fp8,
                      bool keeps_rows = false);
ChunkSlot first_rows(const ChunkSlot& chunk, std::int64_t rows);

using Counts = RecycledVector<std::int32_t>;

// x (already in the chunk) -> y: (rows, D) in wire type.
void expert_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                    const Tensor& y);
// recompute: gate_up was not kept. dy: (rows, D), gates: (rows, 1) f32 -> dx: (rows, D), dots: (rows, 1) f32. Empty dx:
// nobody asks for it.
void expert_backward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                     bool recompute, const Tensor& dy, const Tensor& gates, const Tensor& dx, const Tensor& dots);
// Of the experts first .. first + experts; none for one whose accumulators are absent, it is frozen.
void expert_weight_gradients(Ops& ops, const Counts& counts, const ChunkSlot& chunk,
                             const std::vector<ExpertTensors>& accumulators, std::size_t first, std::size_t experts);

}  // namespace troupe
