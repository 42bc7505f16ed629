// out[t] = table[ids[t]];  dtable[ids[t]] += dx[t], t in increasing order (dtable f32, its own accumulation).
// Padding has ids < 0: its row of out is zero, and it gives no gradient.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

std::int64_t id_at(const Tensor& ids, std::int64_t row, std::int64_t table_rows) {
  const std::int64_t id = *ids.row<const std::int32_t>(row);
  CHECK(id < table_rows, "embedding: token {} of a vocabulary of {}", id, table_rows);
  return id;
}

}  // namespace

void run(const Embedding& op, Scratch& scratch) {
  float* zero = scratch.take<float>(op.out.cols);
  std::fill_n(zero, op.out.cols, 0.0F);
  for (std::int64_t t = 0; t < op.out.rows; ++t) {
    const std::int64_t id = id_at(op.ids, t, op.table.rows);
    if (id < 0)
      write_row(op.out, t, zero);
    else
      convert_row(op.table, id, op.out, t);
  }
}

void run(const EmbeddingGradient& op, Scratch& scratch) {
  float* buffer = scratch.take<float>(op.dx.cols);
  for (std::int64_t t = 0; t < op.dx.rows; ++t) {
    const std::int64_t id = id_at(op.ids, t, op.dtable.rows);
    if (id < 0) continue;
    const float* dx = read_row(op.dx, t, buffer);
    float* row = op.dtable.row<float>(id);
    map(
        op.dx.cols, row, [](Vec sum, Vec x) { return sum + x; }, row, dx);
  }
}

}  // namespace troupe::cpu
