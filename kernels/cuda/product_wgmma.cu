// Products of bfloat16 on warpgroups: c (m, n) = a b, in tiles of 128 rows and 128 or 256 columns.
// A block is two warpgroups of 64 rows each. All its threads copy 64 along k of both operands, some steps ahead, into
// panels of shared memory that the tensor cores read, while those work on the step before.
// The order: an element is one chain over k in blocks of 16, increasing, that starts from c where the product
// accumulates; rows and columns beyond the matrices are zeros and add nothing. So it depends on no other row, and an
// accumulating product may be cut along k at multiples of 16.
// Blocks take tiles in turn, so that those at work share their operands in the L2 cache (product.h).
#include "kernels/cuda/product_wgmma.h"

#include <algorithm>

#include "kernels/cuda/product.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"
#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

namespace {

constexpr int kThreads = 256, kM = 128, kDepth = 64, kBlocksMax = 132;
constexpr int kRowBytes = kDepth * 2;
constexpr int kNarrow = 128, kWide = 256;

constexpr int stages_for(int columns) { return columns == kWide ? 4 : 6; }
constexpr int stage_bytes(int columns) { return (kM + columns) * kRowBytes; }
constexpr std::size_t shared_bytes(int columns) {
  return static_cast<std::size_t>(stages_for(columns)) * stage_bytes(columns) + kPanelAtom;
}

// A product as the kernel sees it: c (m, n), k the inner dimension.
struct Problem {
  HalfMatrix a, b;  // as they stand in memory
  std::int64_t m, n, k;
  View c, bias, add;
  int row_tiles, column_tiles;
  bool accumulate;
};

// What a thread copies of an operand with kOuter rows (of A) or columns (of B), 64 along k a step: every 32nd row of the
// panels, the same 16 bytes of each. Beyond the matrix: zeros.
template <int kOuter, bool across>
struct Feed {
  static constexpr int kStep = kThreads / 8;  // rows of a panel from one copy to the next

  const std::uint16_t* from;
  std::int64_t stride;
  int place, outer_left, depth_left;  // of elements, from this thread's first on
  const std::uint16_t* base;          // any address that may be read

  __device__ Feed(const HalfMatrix& m, std::int64_t outer) : stride(m.stride), base(m.data) {
    const int row = static_cast<int>(threadIdx.x) / 8, chunk = static_cast<int>(threadIdx.x) % 8;
    place = panel_offset(row, chunk);
    from = m.data + (across ? row * stride + outer + chunk * 8 : (outer + row) * stride + chunk * 8);
    outer_left = static_cast<int>((across ? m.cols - chunk * 8 : m.rows - row) - outer);
    depth_left = static_cast<int>(across ? m.rows - row : m.cols - chunk * 8);
  }

  __device__ void copy_one(unsigned char* to, const std::uint16_t* at, int rows, int elements) const {
    const int bytes = rows > 0 && elements > 0 ? min(elements, 8) * 2 : 0;
    copy_async(to, bytes > 0 ? at : base, bytes);
  }

  __device__ void copy(unsigned char* panels) {
    unsigned char* to = panels + place;
#pragma unroll
    for (int i = 0; i < kOuter / 32; ++i) {
      if constexpr (across)
        copy_one(to + i * kStep * kPanelRow, from + i % 2 * kStep * stride + i / 2 * 64, depth_left - i % 2 * kStep,
                 outer_left - i / 2 * 64);
      else
        copy_one(to + i * kStep * kPanelRow, from + i * kStep * stride, outer_left - i * kStep, depth_left);
    }
    from += across ? kDepth * stride : kDepth;
    depth_left -= kDepth;
  }
};

// Its 16 along k that begin at `k` of the 64, from row or column `outer` (a multiple of 64) on.
template <bool across>
__device__ Operand part_of(const unsigned char* panels, int outer, int k) {
  constexpr int kPanel = kDepth * kPanelRow;
  if constexpr (across) return {panels + outer / 64 * kPanel + k * kPanelRow, kPanel};
  return {panels + outer * kPanelRow + k * 2, 0};
}

struct Fragment {
  std::int64_t row, col;  // of the group's first element of this thread: see warpgroup.h
};

__device__ Fragment fragment_of(std::int64_t tile_row, std::int64_t tile_col) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  return {tile_row + warp * 16 + lane / 4, tile_col + lane % 4 * 2};
}

template <int kN>
__device__ void begin_sums(float (&sums)[kN / 2], const Problem& p, const Fragment& at) {
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) {
    const std::int64_t row = at.row + i / 2 % 2 * 8, col = at.col + i / 4 * 8 + i % 2;
    sums[i] = p.accumulate && row < p.m && col < p.n ? *p.c.at<const float>(row, col) : 0.0F;
  }
}

__device__ float with_addends(float sum, const Problem& p, std::int64_t row, std::int64_t col) {
  if (p.bias) sum = sum + p.bias.get(0, col);
  if (p.add) sum = sum + p.add.get(row, col);
  return sum;
}

// Two neighbours: one store where memory allows it.
__device__ void put_pair(const Problem& p, std::int64_t row, std::int64_t col, float first, float second) {
  first = with_addends(first, p, row, col);
  if (col + 1 >= p.n) return p.c.put(row, col, first);
  second = with_addends(second, p, row, col + 1);
  if (!p.c.quads) {
    p.c.put(row, col, first);
    return p.c.put(row, col + 1, second);
  }
  if (p.c.dtype == Dtype::f32)
    *reinterpret_cast<float2*>(p.c.at<float>(row, col)) = make_float2(first, second);
  else
    *reinterpret_cast<unsigned*>(p.c.at<std::uint16_t>(row, col)) =
        narrow(first) | static_cast<unsigned>(narrow(second)) << 16;
}

template <int kN>
__device__ void end_sums(const float (&sums)[kN / 2], const Problem& p, const Fragment& at) {
#pragma unroll
  for (int i = 0; i < kN / 2; i += 2) {
    const std::int64_t row = at.row + i / 2 % 2 * 8, col = at.col + i / 4 * 8;
    if (row < p.m && col < p.n) put_pair(p, row, col, sums[i], sums[i + 1]);
  }
}

// One tile's way through the stages of shared memory.
template <bool a_across, bool b_across, int kN>
struct Tile {
  static constexpr int kStages = stages_for(kN), kAhead = kStages - 2, kStage = stage_bytes(kN),
                       kBytesA = kM * kRowBytes;
  unsigned char* memory;
  Feed<kM, a_across> a;
  Feed<kN, b_across> b;
  int steps, copied = 0;

  __device__ void copy() {
    if (copied < steps) {
      unsigned char* stage = memory + copied % kStages * kStage;
      a.copy(stage);
      b.copy(stage + kBytesA);
    }
    ++copied;
    copy_async_commit();
  }

  // After it the step's panels are whole, and everybody is done with those of two steps before.
  __device__ void wait() const {
    copy_async_wait<kAhead - 1>();
    fence_for_products();
    __syncthreads();
  }

  __device__ void multiply(float (&sums)[kN / 2], int step) const {
    const unsigned char* stage = memory + step % kStages * kStage;
    const int group = static_cast<int>(threadIdx.x) / 128;
    group_fence();
#pragma unroll
    for (int k = 0; k < kDepth; k += 16)
      group_multiply_add<a_across, b_across>(sums, part_of<a_across>(stage, group * 64, k),
                                             part_of<b_across>(stage + kBytesA, 0, k));
    group_commit();
  }
};

template <bool a_across, bool b_across, int kN>
__device__ void multiply_tile(const Problem& p, std::int64_t row, std::int64_t col, unsigned char* memory) {
  using Steps = Tile<a_across, b_across, kN>;
  Steps tile{memory, {p.a, row}, {p.b, col}, static_cast<int>((p.k + kDepth - 1) / kDepth)};
  const Fragment at = fragment_of(row, col);
  float sums[kN / 2];
  for (int step = 0; step < Steps::kAhead; ++step) tile.copy();
  begin_sums<kN>(sums, p, at);
  if (tile.steps > 0) {
    tile.wait();
    hold(sums);
    tile.multiply(sums, 0);  // apart, so that from the loop's begin to its end sums are only the tensor cores'
    tile.copy();
    for (int step = 1; step < tile.steps; ++step) {
      tile.wait();
      tile.multiply(sums, step);
      group_wait<1>();
      tile.copy();
    }
    group_wait<0>();
    hold(sums);
  }
  copy_async_wait<0>();
  end_sums<kN>(sums, p, at);
  __syncthreads();  // before the next tile's copies
}

template <bool a_across, bool b_across, int kN>
__global__ void __launch_bounds__(kThreads, 1) multiply(const __grid_constant__ Problem p) {
  const auto start = reinterpret_cast<std::uintptr_t>(dynamic_shared<unsigned char>());
  auto* memory = reinterpret_cast<unsigned char*>((start + kPanelAtom - 1) / kPanelAtom * kPanelAtom);
  const int tiles = p.row_tiles * p.column_tiles;
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const TilePlace place = place_of_tile(tile, p.row_tiles, p.column_tiles);
    multiply_tile<a_across, b_across, kN>(p, std::int64_t{place.row} * kM, std::int64_t{place.column} * kN, memory);
  }
}

template <int kN>
auto kernel_for(bool a_across, bool b_across) {
  if (a_across) return b_across ? multiply<true, true, kN> : multiply<true, false, kN>;
  return b_across ? multiply<false, true, kN> : multiply<false, false, kN>;
}

// Wide tiles where the columns fill them and, in a sum over tokens, there are enough of them for all multiprocessors.
// Rows of c that are tokens never decide.
int columns_for(const Product& op) {
  const std::int64_t n = op.c.cols;
  if (n % kWide != 0 && n < 4 * kWide) return kNarrow;
  if (!op.transpose_a) return kWide;
  return std::int64_t{blocks_for(op.c.rows, kM)} * blocks_for(n, kWide) >= kBlocksMax ? kWide : kNarrow;
}

}  // namespace

bool takes_wgmma(const Product& op) {
  return op.a.dtype == Dtype::bf16 && op.b.dtype == Dtype::bf16 && rows_aligned(op.a) && rows_aligned(op.b);
}

void run_wgmma(const Product& op, Queue& queue) {
  const int columns = columns_for(op);
  const Problem p{.a = op.a,
                  .b = op.b,
                  .m = op.c.rows,
                  .n = op.c.cols,
                  .k = op.transpose_a ? op.a.rows : op.a.cols,
                  .c = op.c,
                  .bias = op.bias,
                  .add = op.add,
                  .row_tiles = static_cast<int>(blocks_for(op.c.rows, kM)),
                  .column_tiles = static_cast<int>(blocks_for(op.c.cols, columns)),
                  .accumulate = op.accumulate};
  const auto kernel = columns == kWide ? kernel_for<kWide>(op.transpose_a, !op.transpose_b)
                                       : kernel_for<kNarrow>(op.transpose_a, !op.transpose_b);
  launch(queue, static_cast<unsigned>(std::min(p.row_tiles * p.column_tiles, kBlocksMax)), kThreads,
         shared_bytes(columns), kernel, p);
}

}  // namespace troupe::cuda
