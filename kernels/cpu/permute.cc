// Rows that move: Gather out[j] = source[index[j]]; Scatter out[index[j]] = source[j]; Combine sums expert rows back:
// out[t] = add0[t] + add1[t] + sum_k weight[t,k] row(position[t,k]), left to right, one fused multiply-add per k, f32.
// ScaleRows: out[t,:] = x[t,:] scale[t]. Outputs are assigned and rounded once.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

void check_moves(const Tensor& source, const Tensor& index, const Tensor& out, std::int64_t rows) {
  CHECK(source.cols == out.cols, "gather or scatter: {} columns into {}", source.cols, out.cols);
  CHECK(source.dtype == out.dtype || (is_float(source) && is_float(out)), "gather or scatter: dtypes don't convert");
  CHECK(index.dtype == Dtype::i32 && index.rows == rows && index.cols == 1,
        "gather or scatter: index must be i32, {} x 1", rows);
}

// The sorted rows of all pieces, found by their place.
class Pieces {
 public:
  explicit Pieces(const RecycledVector<Tensor>& pieces) : pieces_(pieces) {
    for (const Tensor& piece : pieces) begins_.push_back(total_), total_ += piece.rows;
  }
  const float* row(std::int64_t place, float* buffer) const {
    CHECK(place >= 0 && place < total_, "combine: row {} of {}", place, total_);
    std::size_t p = pieces_.size() - 1;
    while (begins_[p] > place) --p;
    return read_row(pieces_[p], place - begins_[p], buffer);
  }

 private:
  const RecycledVector<Tensor>& pieces_;
  RecycledVector<std::int64_t> begins_;
  std::int64_t total_ = 0;
};

}  // namespace

void run(const Gather& op, Scratch&) {
  check_moves(op.source, op.index, op.out, op.out.rows);
  for (std::int64_t j = 0; j < op.out.rows; ++j) {
    const std::int32_t from = *op.index.row<const std::int32_t>(j);
    CHECK(from >= 0 && from < op.source.rows, "gather: row {} of {}", from, op.source.rows);
    convert_row(op.source, from, op.out, j);
  }
}

void run(const Scatter& op, Scratch&) {
  check_moves(op.source, op.index, op.out, op.source.rows);
  for (std::int64_t j = 0; j < op.source.rows; ++j) {
    const std::int32_t to = *op.index.row<const std::int32_t>(j);
    CHECK(to >= 0 && to < op.out.rows, "scatter: row {} of {}", to, op.out.rows);
    convert_row(op.source, j, op.out, to);
  }
}

void run(const Combine& op, Scratch& scratch) {
  const std::int64_t dim = op.out.cols, slots = op.position.cols;
  CHECK(is_float(op.out), "combine: out must be f32 or bf16");
  CHECK(op.position.dtype == Dtype::i32 && op.position.rows == op.out.rows, "combine: position must be i32, {} rows",
        op.out.rows);
  CHECK(!op.weight || (op.weight.dtype == Dtype::f32 && same_shape(op.weight, op.position)),
        "combine: weight must be f32, in the shape of position");
  for (const Tensor* add : {&op.add0, &op.add1})
    CHECK(!*add || (is_float(*add) && same_shape(*add, op.out)), "combine: add0 and add1 must have the shape of out");
  for (const Tensor& piece : op.pieces)
    CHECK(is_float(piece) && piece.cols == dim, "combine: a piece has {} columns, must have {}", piece.cols, dim);
  const Pieces pieces(op.pieces);
  float *sums = scratch.take<float>(dim), *buffer = scratch.take<float>(dim);
  for (std::int64_t t = 0; t < op.out.rows; ++t) {
    const float* start = op.add0 ? read_row(op.add0, t, buffer) : nullptr;
    if (start)
      std::copy_n(start, dim, sums);
    else
      std::fill_n(sums, dim, 0.0F);
    if (op.add1) {
      const float* more = read_row(op.add1, t, buffer);
      map(
          dim, sums, [](Vec sum, Vec x) { return sum + x; }, sums, more);
    }
    for (std::int64_t k = 0; k < slots; ++k) {
      const float* row = pieces.row(op.position.row<const std::int32_t>(t)[k], buffer);
      const Vec weight = broadcast(op.weight ? op.weight.row<const float>(t)[k] : 1.0F);
      map(
          dim, sums, [=](Vec sum, Vec x) { return fused(weight, x, sum); }, sums, row);
    }
    write_row(op.out, t, sums);
  }
}

void run(const ScaleRows& op, Scratch& scratch) {
  CHECK(is_float(op.x) && is_float(op.out) && same_shape(op.x, op.out), "scale rows: out must have the shape of x");
  CHECK(op.scale.dtype == Dtype::f32 && op.scale.rows == op.x.rows && op.scale.cols == 1,
        "scale rows: scale must be f32, {} x 1", op.x.rows);
  float *in = scratch.take<float>(op.x.cols), *buffer = scratch.take<float>(op.x.cols);
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const float *x = read_row(op.x, t, in), scale = *op.scale.row<const float>(t);
    float* out = open_row(op.out, t, buffer);
    map(
        op.x.cols, out, [=](Vec v) { return v * scale; }, x);
    close_row(op.out, t, out);
  }
}

}  // namespace troupe::cpu
