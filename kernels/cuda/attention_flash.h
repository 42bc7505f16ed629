// Tiles of bfloat16 rows in shared memory for attention on tensor cores, and the products of them that a warp makes:
// 16 rows at a time, sums in float32 fragments (kernels/cuda/mma.h), in blocks of 16 along the summed dimension.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/mma.h"

namespace troupe::cuda {

constexpr int kKeys = 64, kWarpRows = 16, kStages = 2;
constexpr int kSkew = 8;  // elements behind a row, so that eight rows' pieces of 16 bytes lie in different banks
template <int dim>
constexpr int kBlocks = dim <= 64 ? 2 : 1;  // of a multiprocessor at once, as registers go

// Widths of a head in shared memory; what a head lacks is zero.
template <int of_queries, int of_values>
struct Widths {
  static constexpr int dim = of_queries, v_dim = of_values;
};
// f(Widths) with the smallest that the op's heads fit into. False: they fit into none.
template <typename F>
bool with_widths(const Attention& op, F f) {
  const auto fits = [&](int dim, int v_dim) { return op.own_dim + op.shared_dim <= dim && op.v_dim <= v_dim; };
  if (fits(32, 32)) return f(Widths<32, 32>{}), true;
  if (fits(64, 64)) return f(Widths<64, 64>{}), true;
  if (fits(128, 128)) return f(Widths<128, 128>{}), true;
  if (fits(192, 128)) return f(Widths<192, 128>{}), true;
  return false;
}

// Rows in global memory: row r is [own | shared], row r / group's head r % group. Behind `count` rows: zeros.
struct HalfRows {
  const std::uint16_t *own, *shared;
  int stride, shared_stride, own_dim, dim, group, count;
  bool whole;  // every eight columns are 16 bytes that may go at once

  // Where columns 0 .. own_dim - 1 of a row stand, and where the others do: column c at [c] in both.
  struct Row {
    const std::uint16_t *own, *shared;
  };
  __device__ Row row(int r) const {
    const int outer = group == 1 ? r : r / group;
    return {own + std::int64_t{outer} * stride + (r - outer * group) * own_dim,
            shared + std::int64_t{outer} * shared_stride - own_dim};
  }
};

// Where operands of an op let 16 bytes go at once.
struct WholePieces {
  bool q, k, v, dout;
};
inline bool in_pieces(const Tensor& x, std::int64_t head_stride, int dim) {
  return rows_aligned(x) && head_stride % 8 == 0 && dim % 8 == 0;
}
inline WholePieces whole_pieces(const Attention& op, const Tensor& dout = {}) {
  const int dim = op.own_dim + op.shared_dim;
  return {
      in_pieces(op.q, dim, dim),
      in_pieces(op.k, op.k_head_stride, op.own_dim) && (op.shared_dim == 0 || in_pieces(op.k_shared, 0, op.shared_dim)),
      in_pieces(op.v, op.v_head_stride, op.v_dim), in_pieces(dout, op.v_dim, op.v_dim)};
}

// Queries (or rows like them, `dim` wide) of a tile's span for key head g, from the span's first.
__device__ inline HalfRows query_rows(const AttentionViews& f, const View& x, const Tile& t, int g, int dim,
                                      bool whole) {
  const auto* own = x.at<const std::uint16_t>(t.q_begin, std::int64_t{g} * f.group * dim);
  return {own, own, static_cast<int>(x.stride), 0, dim, dim, f.group, t.q_count * f.group, whole};
}
__device__ inline HalfRows key_rows(const AttentionViews& f, const Tile& t, int g, bool whole) {
  const auto* own = f.k.at<const std::uint16_t>(t.k_begin, g * f.k_head_stride);
  const auto* shared = f.shared_dim > 0 ? f.k_shared.at<const std::uint16_t>(t.k_begin, 0) : own;
  return {own,       shared, static_cast<int>(f.k.stride), static_cast<int>(f.k_shared.stride), f.own_dim, f.dim, 1,
          t.k_count, whole};
}
__device__ inline HalfRows value_rows(const AttentionViews& f, const Tile& t, int g, bool whole) {
  const auto* own = f.v.at<const std::uint16_t>(t.k_begin, g * f.v_head_stride);
  return {own, own, static_cast<int>(f.v.stride), 0, f.v_dim, f.v_dim, 1, t.k_count, whole};
}

// `rows` rows of `cols` columns in shared memory; columns behind those of the source are zero.
template <int rows, int cols>
struct Staged {
  static constexpr int kPitch = cols + kSkew, kElements = rows * kPitch;
  static constexpr int kLine = cols < 64 ? cols : 64;  // neighbours of a row that threads fetch side by side
  static_assert(cols % kLine == 0);
  std::uint16_t* data;

  __device__ std::uint16_t* at(int row, int col) const { return data + row * kPitch + col; }

  // Rows `first` and on; asynchronous where pieces are whole. The block's threads share the work.
  template <int threads>
  __device__ void fetch(const HalfRows& from, int first) const {
    if (!from.whole) return fetch_singly<threads>(from, first);
    constexpr int step = threads / (kLine / 8);
    const int begin = static_cast<int>(threadIdx.x) / (kLine / 8),
              col = static_cast<int>(threadIdx.x) % (kLine / 8) * 8;
    if (step > rows && begin >= rows) return;
#pragma unroll
    for (int r = 0; r < rows; r += step) {
      const bool inside = first + begin + r < from.count;
      const HalfRows::Row row = from.row(first + begin + r);
#pragma unroll
      for (int c = 0; c < cols; c += kLine)  // what isn't inside isn't read
        copy_async(at(begin + r, col + c), (col + c < from.own_dim ? row.own : row.shared) + col + c,
                   inside && col + c < from.dim ? 16 : 0);
    }
  }

 private:
  template <int threads>
  __device__ void fetch_singly(const HalfRows& from, int first) const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * cols; i += threads) {
      const int r = i / cols, c = i % cols;
      const HalfRows::Row row = from.row(first + r);
      *at(r, c) =
          first + r < from.count && c < from.dim ? (c < from.own_dim ? row.own : row.shared)[c] : std::uint16_t{0};
    }
  }
};

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x % 32); }

// Rows row .. row + 15, columns col .. col + 15 as a left operand.
template <typename Staged>
__device__ void load_left(unsigned (&a)[4], const Staged& from, int row, int col) {
  const int lane = lane_of_warp();
  load_matrices(a, from.at(row + lane % 16, col + lane / 16 * 8));
}

// c[j] += a b of two neighbouring tiles of eight columns, b as load_matrices or load_transposed left it.
__device__ inline void multiply_two(float (&left)[4], float (&right)[4], const unsigned (&a)[4],
                                    const unsigned (&b)[4]) {
  const unsigned first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
  multiply_add(left, a, first);
  multiply_add(right, a, second);
}

// c[., j] += sum_d a[., d] rows[row + j, d] over one block of sixteen d.
template <int tiles, typename Staged>
__device__ void multiply_by_rows(float (&c)[tiles][4], const unsigned (&a)[4], const Staged& rows, int row, int col) {
  const int lane = lane_of_warp();
#pragma unroll
  for (int j = 0; j < tiles; j += 2) {
    unsigned b[4];
    load_matrices(b, rows.at(row + j * 8 + lane / 16 * 8 + lane % 8, col + lane / 8 % 2 * 8));
    multiply_two(c[j], c[j + 1], a, b);
  }
}

// c[., j] += sum_i a[., i] rows[row + i, col + j] over sixteen rows i.
template <int tiles, typename Staged>
__device__ void multiply_by_columns(float (&c)[tiles][4], const unsigned (&a)[4], const Staged& rows, int row,
                                    int col) {
  const int lane = lane_of_warp();
#pragma unroll
  for (int j = 0; j < tiles; j += 2) {
    unsigned b[4];
    load_transposed(b, rows.at(row + lane % 16, col + j * 8 + lane / 16 * 8));
    multiply_two(c[j], c[j + 1], a, b);
  }
}

// Two neighbouring tiles of sums, rounded, as the left operand of the next product.
__device__ inline void round_to_left(unsigned (&a)[4], const float (&first)[4], const float (&second)[4]) {
  a[0] = pack_halves(first[0], first[1]);
  a[1] = pack_halves(first[2], first[3]);
  a[2] = pack_halves(second[0], second[1]);
  a[3] = pack_halves(second[2], second[3]);
}

template <int tiles>
__device__ void clear(float (&c)[tiles][4]) {
#pragma unroll
  for (int j = 0; j < tiles; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[j][i] = 0;
}

// c[., j] = sum_d left[own_row + ., d] right[j, d], all of a row's `depth` columns, in blocks of sixteen.
template <int depth, int tiles, typename Left, typename Right>
__device__ void multiply_staged(float (&c)[tiles][4], const Left& left, int own_row, const Right& right) {
  clear(c);
#pragma unroll
  for (int d = 0; d < depth; d += 16) {
    unsigned a[4];
    load_left(a, left, own_row, d);
    multiply_by_rows(c, a, right, 0, d);
  }
}

// P from a product of query and key, as the forward made it but for its share.
__device__ inline float weight_of(float product, float scale, const RowFacts& row) {
  return power_of_two(fmaf(product * scale, kLog2OfE, -row.highest * kLog2OfE)) * row.share;
}

// A block of keys and its values; the next one comes into the other stage meanwhile.
template <int dim, int v_dim>
struct KeyStage {
  Staged<kKeys, dim> keys;
  Staged<kKeys, v_dim> values;
  static constexpr int kElements = Staged<kKeys, dim>::kElements + Staged<kKeys, v_dim>::kElements;
  __device__ KeyStage(std::uint16_t* memory, int number)
      : keys{memory + number % kStages * kElements}, values{keys.data + Staged<kKeys, dim>::kElements} {}
};

// Sixteen rows of a tile of queries. Rows behind the tile's last see what the last one sees.
struct WarpRows {
  int first, count, seen_by_first, seen_by_last, seen[2];  // seen: by rows g and g + 8

  __device__ WarpRows(const AttentionViews& f, const Tile& t, int offset) : first(t.first + offset) {
    const int end = t.q_count * f.group, g = lane_of_warp() / 4;
    count = min(kWarpRows, end - first);
    seen_by_first = t.visible(min(first, end - 1) / f.group);
    seen_by_last = count > 0 ? t.visible((first + count - 1) / f.group) : 0;
    for (int half = 0; half < 2; ++half) seen[half] = t.visible(min(first + g + 8 * half, end - 1) / f.group);
  }
  __device__ bool all_see(int key) const { return key < seen_by_first; }
};

// Columns col and col + 1 of a row `width` wide.
__device__ inline void put_two(const View& x, std::int64_t row, int col, int width, std::int64_t begin, float first,
                               float second) {
  const std::int64_t place = begin + col;
  if (x.dtype == Dtype::bf16 && x.quads && place % 2 == 0 && col + 1 < width) {
    *reinterpret_cast<unsigned*>(x.at<std::uint16_t>(row, place)) = pack_halves(first, second);
    return;
  }
  if (col < width) x.put(row, place, first);
  if (col + 1 < width) x.put(row, place + 1, second);
}

}  // namespace troupe::cuda
