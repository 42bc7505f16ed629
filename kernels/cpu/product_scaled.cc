// A scaled Product: for each kScaledDepth of k a chain of fused multiply-adds over the operands' codes, from 0; then
//   c[i,j] = fma(scale_a, scale_b * chain, c[i,j]).   Accumulation is c's own; bias, then add, come after the last tile.
// Codes are held as float32, so the tile of product_tile.cc computes with them. Operands are quantized here, in blocks:
// A once for a chunk of rows, B tile by tile under it, where it isn't codes already.
#include "kernels/cpu/product.h"
#include "kernels/cpu/quantize.h"

namespace troupe::cpu {

namespace {

constexpr std::int64_t kRows = 4 * kScaledDepth, kCols = kScaledDepth;  // at a time: whole tiles of either operand
constexpr std::int64_t kPad = 16;
static_assert(kCols % kPanelCols == 0 && kCols % kWeightBlocks.width == 0);

class ScaledMultiplier {
 public:
  ScaledMultiplier(const Product& op, Scratch& scratch)
      : op_(op),
        depth_(op.transpose_a ? op.a.rows : op.a.cols),
        tiles_(tiles_count(depth_, kScaledDepth)),
        left_stride_(depth_ + kPad) {
    const std::int64_t rows = std::min(kRows, op.c.rows);
    left_ = scratch.take<float>(rows * left_stride_);
    left_scales_ = scratch.take<float>(rows * tiles_);
    if (op.transpose_a) turned_ = scratch.take<float>(kScaledDepth * rows);
    right_ = scratch.take<float>(kScaledDepth * kCols);
    panels_ = scratch.take<float>(kScaledDepth * kCols);
    scales_ = scratch.take<float>(std::max(rows, kCols));
    right_scales_ = scratch.take<float>(kCols);
    sums_ = scratch.take<float>(rows * kCols);
    chains_ = scratch.take<float>(kTileRows * kPanelCols);
    room_ = scratch.take<float>(std::max({depth_, rows, kCols}));
    if (op.bias) bias_ = read_row(op.bias, 0, scratch.take<float>(op.c.cols));
  }

  void multiply() {
    for (row_ = 0; row_ < op_.c.rows; row_ += kRows) {
      rows_ = std::min(kRows, op_.c.rows - row_);
      op_.transpose_a ? read_left_turned() : read_left();
      for (col_ = 0; col_ < op_.c.cols; col_ += kCols) {
        cols_ = std::min(kCols, op_.c.cols - col_);
        begin_sums();
        for (std::int64_t t = 0; t < tiles_; ++t) {
          op_.b_scales ? read_codes_right(t) : read_right(t);
          for (std::int64_t panel = 0; panel < cols_; panel += kPanelCols) multiply_panel(t, panel);
        }
        end_sums();
      }
    }
  }

 private:
  std::int64_t depth_of(std::int64_t t) const { return std::min(kScaledDepth, depth_ - t * kScaledDepth); }
  float left_scale(std::int64_t r, std::int64_t t) const { return left_scales_[r / op_.a_scaling.width * tiles_ + t]; }

  void read_left() {
    quantize(op_.a.row_range(row_, rows_), tile_shape(op_.a_scaling, false), op_.a_scaling.floor, left_, left_stride_,
             left_scales_, room_);
  }
  void read_left_turned() {
    for (std::int64_t t = 0; t < tiles_; ++t) {
      const Tensor part = op_.a.row_range(t * kScaledDepth, depth_of(t)).columns(row_, rows_);
      quantize(part, tile_shape(op_.a_scaling, true), op_.a_scaling.floor, turned_, rows_, scales_, room_);
      transpose(turned_, rows_, part.rows, rows_, left_ + t * kScaledDepth, left_stride_);
      for (std::int64_t i = 0; i < tiles_count(rows_, op_.a_scaling.width); ++i)
        left_scales_[i * tiles_ + t] = scales_[i];
    }
  }

  // Rows t * kScaledDepth.. and columns col_.. of B, as panels; the scale of each column.
  void read_right(std::int64_t t) {
    const std::int64_t depth = depth_of(t), first = t * kScaledDepth;
    const Tensor part = op_.transpose_b ? op_.b.row_range(col_, cols_).columns(first, depth)
                                        : op_.b.row_range(first, depth).columns(col_, cols_);
    quantize(part, tile_shape(op_.b_scaling, !op_.transpose_b), op_.b_scaling.floor, right_, kCols, scales_, room_);
    const Tensor values{right_, part.rows, part.cols, kCols, Dtype::f32};
    for (std::int64_t panel = 0; panel < cols_; panel += kPanelCols) {
      const std::int64_t count = std::min<std::int64_t>(kPanelCols, cols_ - panel);
      float* to = panels_ + panel * kScaledDepth;
      op_.transpose_b ? pack_panel_transposed(values.row_range(panel, count), kPanelCols, to)
                      : pack_panel(values.columns(panel, count), kPanelCols, to);
    }
    for (std::int64_t j = 0; j < kCols; ++j) right_scales_[j] = j < cols_ ? scales_[j / op_.b_scaling.width] : 0;
  }

  // The same of codes, which stand as panels want them.
  void read_codes_right(std::int64_t t) {
    const Tensor part = op_.b.row_range(t * kScaledDepth, depth_of(t)).columns(col_, cols_);
    for (std::int64_t panel = 0; panel < cols_; panel += kPanelCols) {
      const std::int64_t count = std::min<std::int64_t>(kPanelCols, cols_ - panel);
      float* to = panels_ + panel * kScaledDepth;
      if (count < kPanelCols) std::fill_n(to, kPanelCols * part.rows, 0.0F);
      read_codes(part.columns(panel, count), to, kPanelCols);
    }
    const float* const scales = op_.b_scales.row<const float>(t) + col_ / op_.b_scaling.width;
    for (std::int64_t j = 0; j < kCols; ++j) right_scales_[j] = j < cols_ ? scales[j / op_.b_scaling.width] : 0;
  }

  void multiply_panel(std::int64_t t, std::int64_t panel) {
    const RowTiles tiles{rows_};
    const Right right{panels_ + panel * kScaledDepth, kPanelCols};
    for (std::int64_t first = 0; first < rows_;) {
      const int rows = tiles.at(first);
      const Left left{left_ + first * left_stride_ + t * kScaledDepth, left_stride_, 1};
      tile(rows, 2, depth_of(t), left, right, chains_, kPanelCols, false);
      for (int r = 0; r < rows; ++r) {
        const Vec scale = broadcast(left_scale(first + r, t));
        float* sums = sums_ + (first + r) * kCols + panel;
        map(
            kPanelCols, sums, [=](Vec sum, Vec chain, Vec column) { return fused(scale, column * chain, sum); }, sums,
            chains_ + r * kPanelCols, right_scales_ + panel);
      }
      first += rows;
    }
  }

  void begin_sums() {
    for (std::int64_t r = 0; r < rows_; ++r) {
      float* sums = sums_ + r * kCols;
      std::fill_n(sums, kCols, 0.0F);
      if (op_.accumulate) std::copy_n(op_.c.row<const float>(row_ + r) + col_, cols_, sums);
    }
  }
  void end_sums() {
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t j = 0; j < cols_; j += kPanelColsMax)
        finish_row(op_, bias_, row_ + r, col_ + j, std::min(kPanelColsMax, cols_ - j), sums_ + r * kCols + j, false);
  }

  const Product& op_;
  std::int64_t depth_, tiles_, left_stride_, row_ = 0, rows_ = 0, col_ = 0, cols_ = 0;
  float *left_, *left_scales_, *turned_ = nullptr, *right_, *panels_, *scales_, *right_scales_, *sums_, *chains_,
                               *room_;
  const float* bias_ = nullptr;
};

}  // namespace

void multiply_scaled(const Product& op, Scratch& scratch) { ScaledMultiplier(op, scratch).multiply(); }

}  // namespace troupe::cpu
