// c = (accumulate ? c : 0) + A B + bias + add, A: (M, K), B: (K, N), each stored so or transposed; c: (M, N).
// The law: element (i, j) is one chain of float32 fused multiply-adds over k = 0..K-1, whatever M, N and the blocks:
// rows in chunks, columns in blocks, K in blocks whose running sums rest in float32 (in c, or staged when c is bf16,
// is also `add`, or ends inside a panel); bias, then add, come after the last k. Accumulation is c's own.
#include "kernels/cpu/product.h"

#include <array>
#include <utility>

namespace troupe::cpu {

namespace {

constexpr std::int64_t kRowsChunk = 264;  // a multiple of every kTileRows
constexpr std::int64_t kColsBlock = 512;
constexpr std::int64_t kDirectRows = 6 * kTileRows;  // fewer don't pay for packing a B that needs no transposing
constexpr std::int64_t kDepthBlock = 256;  // a panel of it is half of the first-level cache; less of a wider one

template <int rows, int vectors>
void tile_of(std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step, bool from_c) {
  Vec sum[rows][vectors];
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sum[r][v] = from_c ? load(c + r * c_step + v * kLanes) : Vec{};
  const float *a = left.data, *b = right.data;
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec row[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r) {
      const Vec element = broadcast(a[r * left.row_step]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sum[r][v] = fused(element, row[v], sum[r][v]);
    }
    a += left.depth_step;
    b += right.depth_step;
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(c + r * c_step + v * kLanes, sum[r][v]);
}

using Tile = void (*)(std::int64_t, Left, Right, float*, std::int64_t, bool);
template <int... less>
constexpr std::array<Tile, sizeof...(less)> tiles_of(std::integer_sequence<int, less...>) {
  return {tile_of<less + 1, 2>...};
}

using Word8 [[gnu::vector_size(32)]] = std::uint32_t;
using Half8 [[gnu::vector_size(16)]] = std::uint16_t;

inline Vec8 load8(const float* from) {
  Vec8 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline Vec8 load8(const std::uint16_t* from) {
  Half8 half;
  std::memcpy(&half, from, sizeof half);
  return Vec8(__builtin_convertvector(half, Word8) << 16);
}
inline void store8(float* to, Vec8 v) { std::memcpy(to, &v, sizeof v); }
inline float load1(const float* from) { return *from; }
inline float load1(const std::uint16_t* from) { return widen(*from); }

// Rows j and j + 4, four 32-bit words of each, side by side.
inline Vec8 load_pair(const void* low, const void* high) {
  using Vec4 [[gnu::vector_size(16)]] = float;
  Vec4 l, h;
  std::memcpy(&l, low, sizeof l);
  std::memcpy(&h, high, sizeof h);
  return __builtin_shufflevector(l, h, 0, 1, 2, 3, 4, 5, 6, 7);
}

// column(k, rows 0..7) for the four 32-bit words k of eight rows that are `stride` bytes apart:
// two 4 x 4 transpositions side by side.
template <typename Column>
[[gnu::always_inline]] inline void transpose_words(const char* from, std::int64_t stride, Column column) {
  const char* half = from + 4 * stride;
  const Vec8 r0 = load_pair(from, half), r1 = load_pair(from + stride, half + stride);
  const Vec8 r2 = load_pair(from + 2 * stride, half + 2 * stride), r3 = load_pair(from + 3 * stride, half + 3 * stride);
  const Vec8 low01 = __builtin_shufflevector(r0, r1, 0, 8, 1, 9, 4, 12, 5, 13);
  const Vec8 high01 = __builtin_shufflevector(r0, r1, 2, 10, 3, 11, 6, 14, 7, 15);
  const Vec8 low23 = __builtin_shufflevector(r2, r3, 0, 8, 1, 9, 4, 12, 5, 13);
  const Vec8 high23 = __builtin_shufflevector(r2, r3, 2, 10, 3, 11, 6, 14, 7, 15);
  column(0, __builtin_shufflevector(low01, low23, 0, 1, 8, 9, 4, 5, 12, 13));
  column(1, __builtin_shufflevector(low01, low23, 2, 3, 10, 11, 6, 7, 14, 15));
  column(2, __builtin_shufflevector(high01, high23, 0, 1, 8, 9, 4, 5, 12, 13));
  column(3, __builtin_shufflevector(high01, high23, 2, 3, 10, 11, 6, 7, 14, 15));
}

// to[k * width + j] = from[j * stride + k] for 8 rows j and the columns of one 16-byte word of each; returns how many.
// A word of bfloat16 holds two columns: the even one in its lower half, the odd one in its upper.
inline int transpose8(const float* from, std::int64_t stride, float* to, std::int64_t width) {
  transpose_words(reinterpret_cast<const char*>(from), stride * 4,
                  [=](int k, Vec8 column) { store8(to + k * width, column); });
  return 4;
}
inline int transpose8(const std::uint16_t* from, std::int64_t stride, float* to, std::int64_t width) {
  transpose_words(reinterpret_cast<const char*>(from), stride * 2, [=](int k, Vec8 column) {
    store8(to + 2 * k * width, Vec8(Word8(column) << 16));
    store8(to + (2 * k + 1) * width, Vec8(Word8(column) & 0xFFFF0000U));
  });
  return 8;
}

template <typename T>
void pack(const Tensor& b, std::int64_t width, float* panel) {
  for (std::int64_t k = 0; k < b.rows; ++k, panel += width) {
    const T* row = b.row<const T>(k);
    std::int64_t j = 0;
    for (; j + 8 <= b.cols; j += 8) store8(panel + j, load8(row + j));
    for (; j < b.cols; ++j) panel[j] = load1(row + j);
    for (; j < width; ++j) panel[j] = 0;
  }
}

template <typename T>
void pack_transposed(const Tensor& b, std::int64_t width, float* panel) {
  constexpr std::int64_t kWord = 16 / sizeof(T);
  for (std::int64_t j = 0; j < width; j += 8) {
    const std::int64_t present = std::clamp<std::int64_t>(b.rows - j, 0, 8);
    const T* from = present > 0 ? b.row<const T>(j) : nullptr;
    std::int64_t k = 0;
    if (present == 8)
      while (k + kWord <= b.cols) k += transpose8(from + k, b.stride, panel + k * width + j, width);
    for (; k < b.cols; ++k)
      for (std::int64_t i = 0; i < 8; ++i)
        panel[k * width + j + i] = i < present ? load1(from + i * b.stride + k) : 0.0F;
  }
}

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
      for (int r = 0; r < rows; ++r) to[r] = load1(from + r);
    }
  }
  Tensor a_;
  bool transposed_, packs_;
  float* packed_ = nullptr;
  std::int64_t row_ = 0, k_ = 0, depth_ = 0;
};

// Where the rows of a chunk are cut into tiles: the last two share what is left, so that none is thin.
struct RowTiles {
  std::int64_t rows;
  int at(std::int64_t first) const {
    const std::int64_t left = rows - first;
    if (left >= 2 * kTileRows || left == kTileRows) return kTileRows;
    return static_cast<int>(left < kTileRows ? left : (left + 1) / 2);
  }
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
    for (std::int64_t first = 0; first < rows_;) {
      const int rows = tiles.at(first);
      if (first_panel) left_.pack_tile(first, rows);
      float* c = stage ? stage + first * width_ : op_.c.row<float>(row_ + first) + col;
      const std::int64_t c_step = stage ? width_ : op_.c.stride;
      if (stage && begins && op_.accumulate) fetch(first, rows, col, c);
      tile(rows, vectors_, depth, left_.at(first, rows), right, c, c_step, !begins || op_.accumulate);
      if (ends && (stage || bias_)) finish(first, rows, col, c, c_step, stage != nullptr);
      first += rows;
    }
  }

  void fetch(std::int64_t first, int rows, std::int64_t col, float* stage) const {
    const std::int64_t cols = std::min(width_, op_.c.cols - col);
    for (int r = 0; r < rows; ++r) {
      std::fill(stage + r * width_ + cols, stage + (r + 1) * width_, 0.0F);
      std::copy_n(op_.c.row<const float>(row_ + first + r) + col, cols, stage + r * width_);
    }
  }

  // c = sums + bias + add, rounded once if c is bf16. The sums stand in a stage, or already in c.
  void finish(std::int64_t first, int rows, std::int64_t col, float* sums, std::int64_t step, bool staged) const {
    const Tensor c = op_.c.columns(col, std::min(width_, op_.c.cols - col));
    const Tensor add = op_.add ? op_.add.columns(col, c.cols) : Tensor{};
    const auto plus = [](Vec sum, Vec more) { return sum + more; };
    float buffer[8 * kLanes];
    for (int r = 0; r < rows; ++r, sums += step) {
      if (bias_) map(c.cols, sums, plus, sums, bias_ + col);
      if (add) map(c.cols, sums, plus, sums, read_row(add, row_ + first + r, buffer));
      if (staged) write_row(c, row_ + first + r, sums);
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

void check(const Product& op) {
  const std::int64_t m = op.transpose_a ? op.a.cols : op.a.rows, k = op.transpose_a ? op.a.rows : op.a.cols;
  const std::int64_t n = op.transpose_b ? op.b.rows : op.b.cols, kb = op.transpose_b ? op.b.cols : op.b.rows;
  CHECK(k == kb, "product: inner dimensions {} and {} differ", k, kb);
  CHECK(op.c.rows == m && op.c.cols == n, "product: c is {} x {}, must be {} x {}", op.c.rows, op.c.cols, m, n);
  CHECK(is_float(op.a) && is_float(op.b) && is_float(op.c), "product: operands must be f32 or bf16");
  CHECK(!op.accumulate || op.c.dtype == Dtype::f32, "product: only an f32 c accumulates");
  CHECK(!op.bias || (op.bias.cols == n && is_float(op.bias)), "product: bias has {} columns of {}", op.bias.cols, n);
  CHECK(!op.add || (same_shape(op.add, op.c) && is_float(op.add)), "product: add must have the shape of c");
}

}  // namespace

void tile(int rows, int vectors, std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step,
          bool from_c) {
  if (rows == 1 && vectors == 8) return tile_of<1, 8>(depth, left, right, c, c_step, from_c);
  if (rows == 2 && vectors == 4) return tile_of<2, 4>(depth, left, right, c, c_step, from_c);
  static constexpr auto kTiles = tiles_of(std::make_integer_sequence<int, kTileRows>());
  kTiles[static_cast<std::size_t>(rows - 1)](depth, left, right, c, c_step, from_c);
}

void pack_panel(const Tensor& b, std::int64_t width, float* panel) {
  if (b.dtype == Dtype::bf16)
    pack<std::uint16_t>(b, width, panel);
  else
    pack<float>(b, width, panel);
}

void pack_panel_transposed(const Tensor& b, std::int64_t width, float* panel) {
  if (b.dtype == Dtype::bf16)
    pack_transposed<std::uint16_t>(b, width, panel);
  else
    pack_transposed<float>(b, width, panel);
}

void run(const Product& op, Scratch& scratch) {
  check(op);
  Multiplier(op, scratch).multiply();
}

}  // namespace troupe::cpu
