// Rows that move: Gather out[j] = source[index[j]]; Scatter out[index[j]] = source[j]; Combine sums expert rows back:
// out[t] = add0[t] + add1[t] + sum_k weight[t,k] row(position[t,k]), left to right, one fused multiply-add per k, f32.
// ScaleRows: out[t,:] = x[t,:] scale[t]. Outputs are assigned and rounded once.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

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
  for (std::int64_t j = 0; j < op.out.rows; ++j) {
    const std::int32_t from = *op.index.row<const std::int32_t>(j);
    CHECK(from >= 0 && from < op.source.rows, "gather: row {} of {}", from, op.source.rows);
    convert_row(op.source, from, op.out, j);
  }
}

void run(const Scatter& op, Scratch&) {
  for (std::int64_t j = 0; j < op.source.rows; ++j) {
    const std::int32_t to = *op.index.row<const std::int32_t>(j);
    CHECK(to >= 0 && to < op.out.rows, "scatter: row {} of {}", to, op.out.rows);
    convert_row(op.source, j, op.out, to);
  }
}

void run(const Combine& op, Scratch& scratch) {
  const std::int64_t dim = op.out.cols, slots = op.position.cols;
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
