#include "kernels/model/expert.h"

#include <utility>

#include "kernels/model/linear.h"

namespace troupe {

ChunkSlot carve_chunk(Carver& c, const ModelConfig& config, std::int64_t rows, Dtype act, bool fp8, bool keeps_rows) {
  ChunkSlot chunk;
  chunk.fp8 = fp8;
  if (!keeps_rows) chunk.x = c.tensor(rows, config.hidden_size, act);
  chunk.gate_up = c.tensor(rows, 2 * config.moe_intermediate_size, act);
  chunk.h = c.tensor(rows, config.moe_intermediate_size, act);
  chunk.dh = c.tensor(rows, config.moe_intermediate_size, act);
  if (!keeps_rows) chunk.dy = c.tensor(rows, config.hidden_size, act);
  return chunk;
}

ChunkSlot first_rows(const ChunkSlot& chunk, std::int64_t rows) {
  return {chunk.fp8,
          chunk.x ? chunk.x.row_range(0, rows) : Tensor{},
          chunk.gate_up.row_range(0, rows),
          chunk.h.row_range(0, rows),
          chunk.dh.row_range(0, rows),
          chunk.dy ? chunk.dy.row_range(0, rows) : Tensor{}};
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

// Each expert's rows of a times its own matrix, read as product_with(matrix) reads it.
template <typename ProductWith>
void multiply(Ops& ops, const Tensor& a, const std::vector<ExpertTensors>& w, Matrix ExpertTensors::*matrix,
              ProductWith product_with, const Counts& counts, const Tensor& c) {
  GroupedProduct op{.a = a, .c = c, .b = {}, .rows = {}};
  each_expert(counts, [&](std::size_t e, std::int64_t, std::int64_t rows) {
    const Product one = product_with(w[e].*matrix);
    op.transpose_b = one.transpose_b, op.a_scaling = one.a_scaling, op.b_scaling = one.b_scaling;
    op.b.push_back(one.b);
    if (one.b_scales) op.b_turned.push_back(one.b_turned), op.b_scales.push_back(one.b_scales);
    op.rows.push_back(static_cast<std::int32_t>(rows));
  });
  ops.push_back(std::move(op));
}

void forward(Ops& ops, const ChunkSlot& chunk, const Tensor& x, const std::vector<ExpertTensors>& w,
             Matrix ExpertTensors::*matrix, const Counts& counts, const Tensor& y) {
  multiply(
      ops, x, w, matrix, [&](const Matrix& one) { return linear_forward(chunk.fp8, {}, one, {}); }, counts, y);
}
void input_gradient(Ops& ops, const ChunkSlot& chunk, const Tensor& dy, const std::vector<ExpertTensors>& w,
                    Matrix ExpertTensors::*matrix, const Counts& counts, const Tensor& dx) {
  const auto product_with = [&](const Matrix& one) { return linear_input_gradient(chunk.fp8, {}, one, {}); };
  multiply(ops, dy, w, matrix, product_with, counts, dx);
}

void hidden_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk) {
  forward(ops, chunk, chunk.x, w, &ExpertTensors::gate_up, counts, chunk.gate_up);
  ops.push_back(SwiGlu{chunk.gate_up, chunk.h});
}

}  // namespace

void expert_forward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                    const Tensor& y) {
  hidden_forward(ops, w, counts, chunk);
  forward(ops, chunk, chunk.h, w, &ExpertTensors::down, counts, y);
}

void expert_backward(Ops& ops, const std::vector<ExpertTensors>& w, const Counts& counts, const ChunkSlot& chunk,
                     bool recompute, const Tensor& dy, const Tensor& gates, const Tensor& dx, const Tensor& dots) {
  if (recompute) hidden_forward(ops, w, counts, chunk);
  if (dy.data != chunk.dy.data) ops.push_back(Copy{dy, chunk.dy});
  input_gradient(ops, chunk, chunk.dy, w, &ExpertTensors::down, counts, chunk.dh);
  ops.push_back(SwiGluBackward{chunk.gate_up, chunk.dh, chunk.gate_up, gates, dots});
  if (dx) input_gradient(ops, chunk, chunk.gate_up, w, &ExpertTensors::gate_up, counts, dx);
  ops.push_back(ScaleRows{chunk.h, gates, chunk.h});
}

// One product an accumulator, not one op for all of them: what runs together is ordered by sum (kernels/strand.h), so
// that an accumulator travels once. A GPU takes those that follow each other into one launch.
void expert_weight_gradients(Ops& ops, const Counts& counts, const ChunkSlot& chunk,
                             const std::vector<ExpertTensors>& acc, std::size_t first, std::size_t experts) {
  each_expert(counts, [&](std::size_t e, std::int64_t row, std::int64_t rows) {
    if (e < first || e >= first + experts || !acc[e].down) return;
    ops.push_back(
        linear_weight_gradient(chunk.fp8, chunk.dy.row_range(row, rows), chunk.h.row_range(row, rows), acc[e].down));
    ops.push_back(linear_weight_gradient(chunk.fp8, chunk.gate_up.row_range(row, rows), chunk.x.row_range(row, rows),
                                         acc[e].gate_up));
  });
}

}  // namespace troupe
