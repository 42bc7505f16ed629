// The matrix engine under Product and Attention: a register tile and the packing of its right operand.
// A tile adds, for up to kTileRows rows and one panel of columns, a chain of fused multiply-adds in increasing depth to
// zero or to what stands in c: stopping a chain in memory and going on later changes no bit.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

constexpr int kTileRows = kLanes == 16 ? 12 : 6;  // rows x 2 vectors fill the registers
constexpr int kPanelCols = 2 * kLanes;

constexpr std::int64_t round_up(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit * unit; }

// The left operand of a tile: element (r, k) is data[r * row_step + k * depth_step].
struct Left {
  const float* data;
  std::int64_t row_step, depth_step;
};
// The right operand: element (k, j) is data[k * depth_step + j].
struct Right {
  const float* data;
  std::int64_t depth_step;
};

// What a tile fetches ahead while it computes. What is read next: a line of 64 bytes at each step of its depth, `group`
// lines `step` bytes apart, then the next group. What is written next: two lines of each row of sums. Null: nothing.
struct Ahead {
  const char* at = nullptr;
  std::int64_t step = 0, group_step = 0;  // bytes
  std::int64_t group = 16;
  const char* sums = nullptr;
  std::int64_t sums_step = 0;  // bytes
};

// `depth` elements of each row of x from (row, col) on; and one line of each row.
inline Ahead ahead_of_rows(const Tensor& x, std::int64_t row, std::int64_t col, std::int64_t depth) {
  if (row >= x.rows) return {};
  const auto size = static_cast<std::int64_t>(bytes_of(x.dtype));
  return {static_cast<const char*>(x.address(row, col)), 64, x.stride * size, (depth * size + 63) / 64};
}
inline Ahead ahead_of_column(const Tensor& x, std::int64_t row, std::int64_t col) {
  if (col >= x.cols) return {};
  const std::int64_t step = x.stride * static_cast<std::int64_t>(bytes_of(x.dtype));
  return {static_cast<const char*>(x.address(row, col)), step, 16 * step};
}

// c[r, j] = (from_c ? c[r, j] : 0) + sum_k left(r, k) right(k, j), j < vectors * kLanes.
// vectors: 2; or 1 with up to 2 * kTileRows rows; and for one or two rows, whose chains are too few to hide the latency
// of an FMA, also 8 and 4.
void tile(int rows, int vectors, std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step, bool from_c,
          Ahead ahead = {});

// Where rows are cut into tiles of at most `tallest`: the last two share what is left, so that none is thin.
struct RowTiles {
  std::int64_t rows;
  int tallest = kTileRows;
  int at(std::int64_t first) const {
    const std::int64_t left = rows - first;
    if (left >= 2 * tallest || left == tallest) return tallest;
    return static_cast<int>(left < tallest ? left : (left + 1) / 2);
  }
};

inline void prefetch_to_write(const void* line) {
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
}
inline float read_one(const float* from) { return *from; }
inline float read_one(const std::uint16_t* from) { return widen(*from); }

constexpr std::int64_t kDepthBlock = 256;  // a panel of it is half of the first-level cache; less of a wider one
constexpr std::int64_t kPanelColsMax = 8 * kLanes;

// The end of c's row `row` from column `col` on: sums + bias + add, rounded once if c is bf16. bias: all of it, or null.
// in_place: the sums stand in c. REQUIRES: cols <= kPanelColsMax.
void finish_row(const Product& op, const float* bias, std::int64_t row, std::int64_t col, std::int64_t cols,
                float* sums, bool in_place);

// A product with few rows and a transposed B: computed as c^T = B A^T, so that B, the larger of the two, is read where
// it stands and not packed.
bool goes_by_columns(const Product& op);
void multiply_by_columns(const Product& op, Scratch& scratch);

// A product whose operands are scaled: codes in tiles, each with its own chain.
void multiply_scaled(const Product& op, Scratch& scratch);

// to[k, j] = from[j, k] for `rows` rows j and `cols` columns k.
void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t cols, float* to,
               std::int64_t to_stride);

// panel[k * width + j] = b(k, j), or b(j, k) of a transposed b; zero for j beyond b. b: f32 or bf16.
void pack_panel(const Tensor& b, std::int64_t width, float* panel);
void pack_panel_transposed(const Tensor& b, std::int64_t width, float* panel);

}  // namespace troupe::cpu
