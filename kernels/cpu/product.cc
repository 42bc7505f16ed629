// c = (accumulate ? c : 0) + A B + bias + add, A: (M, K), B: (K, N), each stored so or transposed; c: (M, N).
// The law: element (i, j) is one chain of float32 fused multiply-adds over k = 0..K-1, whatever M, N and the blocks:
// rows in chunks, columns in blocks, K in blocks whose running sums rest in float32 (in c, or staged when c is bf16,
// is also `add`, or ends inside a panel); bias, then add, come after the last k. Accumulation is c's own.
// Scaled products are computed in product_scaled.cc.
#include "kernels/cpu/product.h"

namespace troupe::cpu {

namespace {

constexpr std::int64_t kRowsChunk = 264;  // a multiple of every kTileRows
constexpr std::int64_t kColsBlock = 512;
constexpr std::int64_t kDirectRows = 6 * kTileRows;  // fewer don't pay for packing a B that needs no transposing
constexpr int kNearTiles = 4;  // so few rows of A were computed a moment ago: B is what comes from afar

// The left operand of a chunk, k0..k0+depth: row-major f32 is read where it stands; bf16 is widened into rows;
// a transposed one is packed tile by tile, depth-major, so that a tile reads one stream.
class LeftBlock {
 public:
  LeftBlock(const Product& op, Scratch& scratch)
      : a_(op.a), transposed_(op.transpose_a), packs_(transposed_ || a_.dtype != Dtype::f32) {
    if (packs_) packed_ = scratch.take<float>(kRowsChunk * (kDepthBlock + kPad));
  }
  void pack(std::int64_t row, std::int64_t rows, std::int64_t k, std::int64_t depth) {
    row_ = row, k_ = k, depth_ = depth;
    if (packs_ && !transposed_)
      for (std::int64_t r = 0; r < rows; ++r)
        widen_row(a_.row<const std::uint16_t>(row + r) + k, packed_ + r * (kDepthBlock + kPad), depth);
  }
  // Tiles are packed in order, once per chunk and block of K.
  void pack_tile(std::int64_t first, int rows) {
    if (!transposed_) return;
    if (a_.dtype == Dtype::f32) {
      rows == kTileRows ? pack_transposed_tile<float, kTileRows>(first, rows)
                        : pack_transposed_tile<float, 0>(first, rows);
    } else {
      pack_transposed_tile<std::uint16_t, 0>(first, rows);
    }
  }
  // What the tile from row `next` of the chunk on will read, or be packed from: of a transposed A the line with the
  // tile's last element; an earlier one came with the tile before.
  Ahead ahead(std::int64_t next) const {
    if (!transposed_) return ahead_of_rows(a_, row_ + next, k_, depth_);
    return ahead_of_column(a_, k_, std::min(row_ + next + kTileRows, a_.cols) - 1);
  }
  Left at(std::int64_t first, int rows) const {
    if (transposed_) return {packed_ + first * depth_, 1, rows};
    if (packs_) return {packed_ + first * (kDepthBlock + kPad), kDepthBlock + kPad, 1};
    return {a_.row<const float>(row_ + first) + k_, a_.stride, 1};
  }

 private:
  static constexpr std::int64_t kPad = 16;
  template <typename T, int fixed>
  void pack_transposed_tile(std::int64_t first, int any) {
    const int rows = fixed > 0 ? fixed : any;
    float* to = packed_ + first * depth_;
    for (std::int64_t k = 0; k < depth_; ++k, to += rows) {
      const T* from = a_.row<const T>(k_ + k) + row_ + first;
      if constexpr (fixed > 0)
        std::memcpy(to, from, fixed * sizeof(float));
      else
        for (int r = 0; r < rows; ++r) to[r] = read_one(from + r);
    }
  }
  Tensor a_;
  bool transposed_, packs_;
  float* packed_ = nullptr;
  std::int64_t row_ = 0, k_ = 0, depth_ = 0;
};

class Multiplier {
 public:
  Multiplier(const Product& op, Scratch& scratch)
      : op_(op), depth_(op.transpose_a ? op.a.rows : op.a.cols), left_(op, scratch) {
    const std::int64_t rows = op.c.rows;
    vectors_ = rows == 1 ? 8 : rows == 2 ? 4 : 2;
    width_ = vectors_ * kLanes;
    depth_block_ = kDepthBlock * 2 / vectors_;
    staged_ = op.c.dtype != Dtype::f32 || op.add;
    panel_ = scratch.take<float>(depth_block_ * width_);
    const std::int64_t columns = std::min(round_up(op.c.cols, width_), kColsBlock);
    if (staged_ || op.c.cols % width_ != 0) stage_ = scratch.take<float>(std::min(rows, kRowsChunk) * columns);
    if (op.bias) bias_ = read_row(op.bias, 0, scratch.take<float>(op.c.cols));
  }

  void multiply() {
    const std::int64_t chunks = (op_.c.rows + kRowsChunk - 1) / kRowsChunk;
    for (std::int64_t left = chunks; left > 0; --left, row_ += rows_) {
      const std::int64_t rows = op_.c.rows - row_;
      rows_ = std::min(rows, round_up((rows + left - 1) / left, kTileRows));
      for (std::int64_t col = 0; col < op_.c.cols; col += kColsBlock) multiply_block(col);
    }
  }

 private:
  void multiply_block(std::int64_t block) {
    const std::int64_t end = std::min(block + kColsBlock, op_.c.cols);
    std::int64_t k = 0;
    do {
      const std::int64_t depth = std::min(depth_block_, depth_ - k);
      left_.pack(row_, rows_, k, depth);
      for (std::int64_t col = block; col < end; col += width_) {
        const bool full = col + width_ <= end;
        float* stage = staged_ || !full ? stage_ + (col - block) * rows_ : nullptr;
        multiply_panel(pack(col, std::min(width_, end - col), k, depth), col, k, depth, stage, col == block);
      }
      k += depth;
    } while (k < depth_);
  }

  // Columns col.. of rows k.. of B, as a panel. For few rows a whole float32 panel is read where it stands.
  Right pack(std::int64_t col, std::int64_t cols, std::int64_t k, std::int64_t depth) const {
    if (op_.transpose_b) {
      pack_panel_transposed(op_.b.row_range(col, cols).columns(k, depth), width_, panel_);
      return {panel_, width_};
    }
    const Tensor part = op_.b.row_range(k, depth).columns(col, cols);
    if (rows_ <= kDirectRows && cols == width_ && part.dtype == Dtype::f32)
      return {static_cast<const float*>(part.data), part.stride};
    pack_panel(part, width_, panel_);
    return {panel_, width_};
  }

  void multiply_panel(Right right, std::int64_t col, std::int64_t k, std::int64_t depth, float* stage,
                      bool first_panel) {
    const bool begins = k == 0, ends = k + depth == depth_;
    const RowTiles tiles{rows_};
    const bool from_c = !begins || op_.accumulate;
    // Of the first panel's tiles all but the last two fetch more of A; those, and other panels' first, fetch B.
    const bool far = first_panel && rows_ > kNearTiles * kTileRows;
    int number = far ? 2 - static_cast<int>((rows_ + kTileRows - 1) / kTileRows) : 0;
    for (std::int64_t first = 0; first < rows_; ++number) {
      const int rows = tiles.at(first);
      if (first_panel) left_.pack_tile(first, rows);
      float* c = stage ? stage + first * width_ : op_.c.row<float>(row_ + first) + col;
      const std::int64_t c_step = stage ? width_ : op_.c.stride;
      if (stage && begins && op_.accumulate) fetch(first, rows, col, c);
      Ahead ahead = number < 0 ? left_.ahead(first + rows) : right_ahead(col + width_, k, depth, number);
      if (!stage) {  // its own sums, or those of the next tile if a tile begins with them
        ahead.sums = reinterpret_cast<const char*>(from_c ? c + rows * c_step : c);
        ahead.sums_step = c_step * static_cast<std::int64_t>(sizeof(float));
      }
      tile(rows, vectors_, depth, left_.at(first, rows), right, c, c_step, from_c, ahead);
      for (int r = 0; r < rows && ends && (stage || bias_); ++r)
        finish_row(op_, bias_, row_ + first + r, col, std::min(width_, op_.c.cols - col), c + r * c_step, !stage);
      first += rows;
    }
  }

  // What the next panel is packed from: each tile of this one fetches its share.
  Ahead right_ahead(std::int64_t col, std::int64_t k, std::int64_t depth, int number) const {
    if (col >= op_.c.cols) return {};
    if (op_.transpose_b) {
      const std::int64_t skipped = number * (depth / ahead_of_rows(op_.b, col, k, depth).group);
      return skipped < width_ ? ahead_of_rows(op_.b, col + skipped, k, depth) : Ahead{};
    }
    const std::int64_t line = number * 64 / static_cast<std::int64_t>(bytes_of(op_.b.dtype));
    return line < width_ ? ahead_of_column(op_.b, k, col + line) : Ahead{};
  }

  void fetch(std::int64_t first, int rows, std::int64_t col, float* stage) const {
    const std::int64_t cols = std::min(width_, op_.c.cols - col);
    for (int r = 0; r < rows; ++r) {
      std::fill(stage + r * width_ + cols, stage + (r + 1) * width_, 0.0F);
      std::copy_n(op_.c.row<const float>(row_ + first + r) + col, cols, stage + r * width_);
    }
  }

  const Product& op_;
  std::int64_t depth_, depth_block_, width_, row_ = 0, rows_ = 0;
  int vectors_;
  bool staged_;
  LeftBlock left_;
  float *panel_ = nullptr, *stage_ = nullptr;
  const float* bias_ = nullptr;
};

}  // namespace

void finish_row(const Product& op, const float* bias, std::int64_t row, std::int64_t col, std::int64_t cols,
                float* sums, bool in_place) {
  const auto plus = [](Vec sum, Vec more) { return sum + more; };
  float buffer[kPanelColsMax];
  if (bias != nullptr) map(cols, sums, plus, sums, bias + col);
  if (op.add) map(cols, sums, plus, sums, read_row(op.add.columns(col, cols), row, buffer));
  if (!in_place) write_row(op.c.columns(col, cols), row, sums);
}

void run(const Product& op, Scratch& scratch) {
  if (op.a_scaling) return multiply_scaled(op, scratch);
  if (goes_by_columns(op)) return multiply_by_columns(op, scratch);
  Multiplier(op, scratch).multiply();
}

}  // namespace troupe::cpu
