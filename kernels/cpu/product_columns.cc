// c = A B^T + bias + add for few rows of A: c^T = B A^T. The rows of B are the tile's rows, read where they stand; the rows
// of A are its lanes, packed once. The chains are those of product.cc, to the bit: increasing k, bias, then add.
#include "kernels/cpu/product.h"

namespace troupe::cpu {

namespace {

constexpr std::int64_t kRowsMin = 8;   // fewer leave most lanes empty
constexpr std::int64_t kRowsMax = 72;  // more pay for packing B
constexpr std::int64_t kGroup = 48;    // rows of B at a time: whole tiles, and whole lines of c

// Up to kPanelCols rows of A as lanes: panel[k * width + j] = a(row + j, k).
struct LanePanel {
  std::int64_t row, count;
  int vectors;
  float* panel;
  std::int64_t width() const { return vectors * kLanes; }
};

class ByColumns {
 public:
  ByColumns(const Product& op, Scratch& scratch) : op_(op), depth_(op.a.cols) {
    for (std::int64_t row = 0; row < op.a.rows; row += kPanelCols) {
      const std::int64_t count = std::min<std::int64_t>(kPanelCols, op.a.rows - row);
      const int vectors = count > kLanes ? 2 : 1;
      panels_[panels_count_++] = {row, count, vectors, scratch.take<float>(depth_ * vectors * kLanes)};
    }
    sums_ = scratch.take<float>(kGroup * round_up(op.a.rows, kPanelCols));
    rows_ = scratch.take<float>(kPanelCols * kGroup);
    if (op.b.dtype != Dtype::f32) wide_ = scratch.take<float>(kGroup * kDepthBlock);
    if (op.bias) bias_ = read_row(op.bias, 0, scratch.take<float>(op.c.cols));
  }

  void multiply() {
    for (int p = 0; p < panels_count_; ++p) {
      const LanePanel& lanes = panels_[p];
      pack_panel_transposed(op_.a.row_range(lanes.row, lanes.count), lanes.width(), lanes.panel);
    }
    for (std::int64_t col = 0; col < op_.c.cols; col += kGroup) {
      const std::int64_t count = std::min(kGroup, op_.c.cols - col);
      std::int64_t k = 0;
      do {
        const std::int64_t depth = std::min(kDepthBlock, depth_ - k);
        multiply_group(col, count, k, depth);
        k += depth;
      } while (k < depth_);
      for (int p = 0; p < panels_count_; ++p) finish(panels_[p], col, count);
    }
  }

 private:
  float* sums_of(const LanePanel& lanes) const { return sums_ + kGroup * lanes.row; }

  void multiply_group(std::int64_t col, std::int64_t count, std::int64_t k, std::int64_t depth) {
    Left left{op_.b.dtype == Dtype::f32 ? op_.b.row<const float>(col) + k : wide_, op_.b.stride, 1};
    if (op_.b.dtype != Dtype::f32) {
      left.row_step = kDepthBlock;
      for (std::int64_t r = 0; r < count; ++r)
        widen_row(op_.b.row<const std::uint16_t>(col + r) + k, wide_ + r * kDepthBlock, depth);
    }
    for (int p = 0; p < panels_count_; ++p) {
      const LanePanel& lanes = panels_[p];
      const RowTiles tiles{count, lanes.vectors == 1 ? 2 * kTileRows : kTileRows};
      for (std::int64_t first = 0; first < count;) {
        const int rows = tiles.at(first);
        tile(rows, lanes.vectors, depth, {left.data + first * left.row_step, left.row_step, 1},
             {lanes.panel + k * lanes.width(), lanes.width()}, sums_of(lanes) + first * lanes.width(), lanes.width(),
             k > 0, p == 0 ? ahead_of_rows(op_.b, col + kGroup + first, k, depth) : Ahead{});
        first += rows;
      }
    }
  }

  void finish(const LanePanel& lanes, std::int64_t col, std::int64_t count) {
    const bool direct = op_.c.dtype == Dtype::f32 && !bias_ && !op_.add;
    float* to = direct ? op_.c.row<float>(lanes.row) + col : rows_;
    const std::int64_t step = direct ? op_.c.stride : kGroup;
    transpose(sums_of(lanes), lanes.width(), count, lanes.count, to, step);
    for (std::int64_t r = 0; r < lanes.count && !direct; ++r)
      finish_row(op_, bias_, lanes.row + r, col, count, rows_ + r * kGroup, false);
  }

  const Product& op_;
  std::int64_t depth_;
  LanePanel panels_[kRowsMax / kPanelCols + 1];
  int panels_count_ = 0;
  float *sums_, *rows_, *wide_ = nullptr;
  const float* bias_ = nullptr;
};

}  // namespace

bool goes_by_columns(const Product& op) {
  const bool few = op.c.rows >= kRowsMin && op.c.rows <= kRowsMax;
  return few && op.transpose_b && !op.transpose_a && !op.accumulate && op.a.cols > 0;
}

void multiply_by_columns(const Product& op, Scratch& scratch) { ByColumns(op, scratch).multiply(); }

}  // namespace troupe::cpu
