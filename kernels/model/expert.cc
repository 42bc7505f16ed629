#include "kernels/model/expert.h"

#include <utility>

namespace troupe {

ChunkSlot carve_chunk(Carver& c, const ModelConfig& config, std::int64_t rows, Dtype act) {
  ChunkSlot chunk;
  chunk.x = c.tensor(rows, config.hidden_size, act);
  chunk.gate_up = c.tensor(rows, 2 * config.moe_intermediate_size, act);
  chunk.h = c.tensor(rows, config.moe_intermediate_size, act);
  chunk.dh = c.tensor(rows, config.moe_intermediate_size, act);
  chunk.scaled = c.tensor(rows, config.hidden_size, act);
  return chunk;
}

ChunkSlot first_rows(const ChunkSlot& chunk, std::int64_t rows) {
  return {chunk.x.row_range(0, rows), chunk.gate_up.row_range(0, rows), chunk.h.row_range(0, rows),
          chunk.dh.row_range(0, rows), chunk.scaled.row_range(0, rows)};
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

// Each expert's rows of a times its own matrix, or that one's transpose.
void multiply(Ops& ops, const Tensor& a, const std::vector<ExpertTensors>& w, Tensor ExpertTensors::*matrix,
              bool transpose, const Counts& counts, const Tensor& c) {
  GroupedProduct op{.a = a, .c = c, .b = {}, .rows = {}, .transpose_b = transpose};
  each_expert(counts, [&](std::size_t e, std::int64_t, std::int64_t rows) {
    op.b.push_back(w[e].*matrix);
    op.rows.push_back(static_cast<std::int32_t>(rows));
  });
  ops.push_back(std::move(op));
}

void hidden_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk) {
  multiply(ops, chunk.x, w, &ExpertTensors::gate_up, true, counts, chunk.gate_up);
  ops.push_back(SwiGlu{chunk.gate_up, chunk.h});
}

}  // namespace

void expert_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                    const Tensor& y) {
  hidden_forward(ops, w, counts, chunk);
  multiply(ops, chunk.h, w, &ExpertTensors::down, true, counts, y);
}

void expert_backward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                     bool recompute, const Tensor& dy, const Tensor& gates, const Tensor& dx, const Tensor& dots) {
  if (recompute) hidden_forward(ops, w, counts, chunk);
  multiply(ops, dy, w, &ExpertTensors::down, false, counts, chunk.dh);
  ops.push_back(SwiGluBackward{chunk.gate_up, chunk.dh, chunk.gate_up, gates, dots});
  if (dx) multiply(ops, chunk.gate_up, w, &ExpertTensors::gate_up, false, counts, dx);
  ops.push_back(ScaleRows{dy, gates, chunk.scaled});
}

// One product an accumulator, not one op for all of them: what runs together is ordered by sum (kernels/strand.h), so
// that an accumulator travels once. A GPU takes those that follow each other into one launch.
void expert_weight_gradients(Ops& ops, const Counts& counts, const ChunkSlot& chunk,
                             const std::vector<ExpertTensors>& acc, std::size_t first, std::size_t experts) {
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    if (e < first || e >= first + experts || !acc[e].down) return;
    ops.push_back(Product{.a = chunk.scaled.row_range(row, rows),
                          .b = chunk.h.row_range(row, rows),
                          .c = acc[e].down,
                          .transpose_a = true,
                          .accumulate = true});
    ops.push_back(Product{.a = chunk.gate_up.row_range(row, rows),
                          .b = chunk.x.row_range(row, rows),
                          .c = acc[e].gate_up,
                          .transpose_a = true,
                          .accumulate = true});
  });
}

}  // namespace troupe
