// What attention on warpgroups shares: blocks of two warpgroups with 64 rows each, panels of bfloat16 rows in shared
// memory that all threads fill, and the products of them (kernels/cuda/warpgroup_forms.h).
#pragma once

#include "kernels/cuda/attention_flash.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/warpgroup_forms.h"

namespace troupe::cuda {

constexpr int kGroupThreads = 256, kGroupRows = 64, kTileRows = 128;

// f(Widths) where the op's heads are as wide as these kernels are made for, and stand where 16 bytes may go at once.
// False: they aren't.
template <typename F>
bool with_group_widths(const Attention& op, F f) {
  const WholePieces whole = whole_pieces(op);
  if (op.heads != op.kv_heads || !(op.scale > 0) || !whole.q || !whole.k || !whole.v) return false;
  if (op.own_dim + op.shared_dim == 192 && op.v_dim == 128) return f(Widths<192, 128>{}), true;
  return false;
}

// `rows` rows of `cols` columns, as panels of 64 columns side by side.
template <int rows, int cols>
struct Panels {
  static constexpr int kPanel = rows * kPanelRow, kBytes = cols / 64 * kPanel;
  static_assert(cols % 64 == 0 && rows % 32 == 0);
  unsigned char* data;

  // Rows `first` and on, behind the last zeros; asynchronous. The block's threads share the work.
  __device__ void fetch(const HalfRows& from, int first) const {
    const int begin = own_row(), chunk = own_chunk();
    unsigned char* to = data + panel_offset(begin, chunk);
#pragma unroll
    for (int r = 0; r < rows; r += kFetchRows) {
      const int bytes = first + begin + r < from.count ? 16 : 0;  // what isn't inside isn't read
      const HalfRows::Row row = from.row(first + begin + r);
#pragma unroll
      for (int c = 0; c < cols; c += 64) {
        const int col = c + chunk * 8;
        copy_async(to + c / 64 * kPanel + r * kPanelRow, (col < from.own_dim ? row.own : row.shared) + col, bytes);
      }
    }
  }
  // The same of rows that stand at from + own_place() and every `stride` elements, `count` of them.
  __device__ void fetch(const std::uint16_t* from, std::int64_t stride, int count) const {
    unsigned char* to = data + panel_offset(own_row(), own_chunk());
#pragma unroll
    for (int r = 0; r < rows; r += kFetchRows)
#pragma unroll
      for (int c = 0; c < cols; c += 64)
        copy_async(to + c / 64 * kPanel + r * kPanelRow, from + r * stride + c, own_row() + r < count ? 16 : 0);
  }
  static __device__ std::int64_t own_place(std::int64_t stride) { return own_row() * stride + own_chunk() * 8; }

  // As a left operand's rows or a right one's columns, from row `row` on; 16 of their columns, those at along(col).
  __device__ Source by_rows(int row) const { return Source({data + row * kPanelRow, 0}); }
  static constexpr int along(int col) { return col / 64 * kPanel + col % 64 * 2; }
  // As a right operand, whose columns are the columns here; 16 of their rows, those at across(row).
  __device__ Source by_columns() const { return Source({data, kPanel}); }
  static constexpr int across(int row) { return row * kPanelRow; }

 private:
  static constexpr int kFetchRows = kGroupThreads / 8;
  static __device__ int own_row() { return static_cast<int>(threadIdx.x) / 8; }
  static __device__ int own_chunk() { return static_cast<int>(threadIdx.x) % 8; }
};

// Where panels may begin in the block's shared memory; a launch asks for kPanelAtom bytes more than it needs.
__device__ inline unsigned char* panel_memory() {
  const auto start = reinterpret_cast<std::uintptr_t>(dynamic_shared<unsigned char>());
  return reinterpret_cast<unsigned char*>((start + kPanelAtom - 1) / kPanelAtom * kPanelAtom);
}

// The group's number, as all its lanes know it.
__device__ inline int group_of_block() { return __shfl_sync(kWarp, static_cast<int>(threadIdx.x) / 128, 0); }

// What was copied, but for `left` of the newest groups, is seen by the block's products, and everybody is here.
template <int left = 0>
__device__ void meet_for_products() {
  copy_async_wait<left>();
  fence_for_products();
  __syncthreads();
}

// c = left right^T over `depth` columns of both, which stand in panels.
template <int depth, typename Left, typename Right, int count>
__device__ void multiply_rows(float (&c)[count], const Source& left, const Source& right) {
  group_multiply_add<false, false, true>(c, left, right);
#pragma unroll
  for (int d = 16; d < depth; d += 16)
    group_multiply_add<false, false>(c, left.at(Left::along(d)), right.at(Right::along(d)));
}

// c += a rows, 16 rows a step.
template <typename Right, int count, int steps>
__device__ void add_product(float (&c)[count], const unsigned (&a)[steps][4], const Source& right) {
#pragma unroll
  for (int k = 0; k < steps; ++k) group_multiply_add<true>(c, a[k], right.at(Right::across(16 * k)));
}

// Columns 16k .. 16k + 15 of sums, rounded, as a left operand.
template <int count>
__device__ void round_to_left(unsigned (&a)[4], const float (&c)[count], int k) {
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = pack_halves(c[8 * k + 2 * i], c[8 * k + 2 * i + 1]);
}

template <int count>
__device__ void clear(float (&c)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) c[i] = 0;
}

}  // namespace troupe::cuda
