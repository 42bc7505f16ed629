#include "kernels/model/expert.h"

#include "kernels/model/linear.h"

namespace troupe {

ChunkSlot carve_chunk(Carver& c, const ModelConfig& config, std::int64_t rows, Dtype act, bool fp8) {
  ChunkSlot chunk;
  chunk.fp8 = fp8;
  chunk.x = c.tensor(rows, config.hidden_size, act);
  chunk.gate_up = c.tensor(rows, 2 * config.moe_intermediate_size, act);
  chunk.h = c.tensor(rows, config.moe_intermediate_size, act);
  chunk.dh = c.tensor(rows, config.moe_intermediate_size, act);
  chunk.scaled = c.tensor(rows, config.hidden_size, act);
  return chunk;
}

ChunkSlot first_rows(const ChunkSlot& chunk, std::int64_t rows) {
  return {chunk.fp8,
          chunk.x.row_range(0, rows),
          chunk.gate_up.row_range(0, rows),
          chunk.h.row_range(0, rows),
          chunk.dh.row_range(0, rows),
          chunk.scaled.row_range(0, rows)};
}

namespace {

// Calls visit(expert, first row, rows) for each expert that has rows.
template <typename Visit>
void each_expert(const Counts& counts, Visit visit) {
  std::int64_t row = 0;
  for (std::size_t e = 0; e < counts.size(); ++e) {
    if (counts[e] > 0) visit(e, row, static_cast<std::int64_t>(counts[e]));
    row += counts[e];
  }
}

void gate_up_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk) {
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    ops.push_back(
        linear_forward(chunk.fp8, chunk.x.row_range(row, rows), w[e].gate_up, chunk.gate_up.row_range(row, rows)));
  });
}

}  // namespace

void expert_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                    const Tensor& y) {
  gate_up_forward(ops, w, counts, chunk);
  ops.push_back(SwiGlu{chunk.gate_up, chunk.h});
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    ops.push_back(linear_forward(chunk.fp8, chunk.h.row_range(row, rows), w[e].down, y.row_range(row, rows)));
  });
}

void expert_backward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                     bool recompute, const Tensor& dy, const Tensor& gates, const Tensor& dx, const Tensor& dots) {
  if (recompute) {
    gate_up_forward(ops, w, counts, chunk);
    ops.push_back(SwiGlu{chunk.gate_up, chunk.h});
  }
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    ops.push_back(linear_input_gradient(chunk.fp8, dy.row_range(row, rows), w[e].down, chunk.dh.row_range(row, rows)));
  });
  ops.push_back(SwiGluBackward{chunk.gate_up, chunk.dh, chunk.gate_up, gates, dots});
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    if (dx)
      ops.push_back(
          linear_input_gradient(chunk.fp8, chunk.gate_up.row_range(row, rows), w[e].gate_up, dx.row_range(row, rows)));
  });
  ops.push_back(ScaleRows{dy, gates, chunk.scaled});
}

void expert_weight_gradients(Ops& ops, const Counts& counts, const ChunkSlot& chunk,
                             const std::vector<ExpertTensors>& acc, std::size_t first, std::size_t experts) {
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    if (e < first || e >= first + experts || !acc[e].down) return;
    ops.push_back(linear_weight_gradient(chunk.fp8, chunk.scaled.row_range(row, rows), chunk.h.row_range(row, rows),
                                         acc[e].down));
    ops.push_back(linear_weight_gradient(chunk.fp8, chunk.gate_up.row_range(row, rows), chunk.x.row_range(row, rows),
                                         acc[e].gate_up));
  });
}

}  // namespace troupe
