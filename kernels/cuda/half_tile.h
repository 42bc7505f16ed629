// A tile of c = start + A B on tensor cores: one block's 128 rows and `columns` columns. A (M, K) and B (K, N) are
// bfloat16, each as it is or transposed; sums are float32 and begin with zero or with what stands in c.
// The law: an element is a chain over blocks of 16 in increasing k, one step of the tensor core each, what lies behind the
// last k being zero. So a sum may be cut between blocks without changing a bit, and the bits depend neither on the tile
// nor on the element's place in it. (The tensor core adds the 16 products of a block in an order of its own, the same for
// all elements; the CPU's chain is one product after another.)
// A warp has 64 x 64 elements. Slabs of A and B, kDepth of k, stand in shared memory as they do in device memory, rows of
// k or k rows, in a ring of kStages; ldmatrix turns them where needed.
#pragma once

#include "kernels/cuda/mma.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

// `count` rows of `length` elements in shared memory, in chunks of eight. A chunk's place in its row is permuted by the
// row, so that the same chunk of eight neighbouring rows lies in all banks.
template <int length, int count, int threads>
struct HalfSlab {
  static constexpr int kElements = length * count, kChunks = length / 8, kAtOnce = threads / kChunks;
  static_assert(kChunks % 8 == 0 && threads % kChunks == 0 && count % kAtOnce == 0);

  __device__ static int place(int row, int chunk) { return row * length + (chunk ^ (row % 8)) * 8; }

  // From (row, col) of x on; zeros where x has ended.
  template <bool aligned>
  __device__ static __forceinline__ void fill(std::uint16_t* slab, const HalfMatrix& x, std::int64_t row,
                                              std::int64_t col) {
    const int first = static_cast<int>(threadIdx.x) / kChunks, chunk = static_cast<int>(threadIdx.x) % kChunks;
    const std::uint16_t* from = x.data + (row + first) * x.stride + col + chunk * 8;
    const std::int64_t rows = x.rows - row - first;
    const int width = static_cast<int>(max(std::int64_t{0}, min(std::int64_t{8}, x.cols - col - chunk * 8)));
#pragma unroll
    for (int i = 0; i < count / kAtOnce; ++i) {
      const int have = i * kAtOnce < rows ? width : 0;
      std::uint16_t* to = slab + place(first + i * kAtOnce, chunk);
      const std::uint16_t* at = from + i * kAtOnce * x.stride;  // maybe behind the end: then nothing is read
      if constexpr (aligned)
        copy_async(to, at, 2 * have);
      else
        *reinterpret_cast<uint4*>(to) = gathered(at, have);
    }
  }

 private:
  __device__ static uint4 gathered(const std::uint16_t* at, int have) {
    unsigned words[4];
    for (int i = 0; i < 4; ++i) {
      const unsigned low = 2 * i < have ? at[2 * i] : 0U, high = 2 * i + 1 < have ? at[2 * i + 1] : 0U;
      words[i] = low | high << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

template <bool transpose_a, bool transpose_b, int columns, bool aligned>
class HalfTile {
 public:
  static constexpr int kRows = 128, kColumns = columns, kDepth = 64, kWarpSide = 64;
  static constexpr int kStages = columns > 128 ? 4 : 3;
  static constexpr int kThreads = 32 * (kRows / kWarpSide) * (columns / kWarpSide);
  static constexpr int kBlocksAtOnce = columns > 128 ? 1 : 2;  // on a multiprocessor: what registers allow

 private:
  using SlabA = HalfSlab<transpose_a ? kRows : kDepth, transpose_a ? kDepth : kRows, kThreads>;
  using SlabB = HalfSlab<transpose_b ? kDepth : columns, transpose_b ? columns : kDepth, kThreads>;
  static constexpr int kStage = SlabA::kElements + SlabB::kElements;
  static constexpr int kStep = 16, kSteps = kDepth / kStep, kAcross = kWarpSide / 16;
  static constexpr int kBoardStride = kWarpSide + 8, kBoard = 16 * kBoardStride;  // floats: no two rows in one bank

 public:
  static constexpr std::size_t kSharedBytes = std::size_t{kStages} * kStage * 2;
  static_assert(kSharedBytes >= sizeof(float) * kBoard * kThreads / 32);

  // The tile's first element in c.
  __device__ __forceinline__ HalfTile(std::int64_t row, std::int64_t col)
      : shared_(dynamic_shared<std::uint16_t>()),
        row_(row),
        col_(col),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_row_(static_cast<int>(threadIdx.x) / 32 % (kRows / kWarpSide) * kWarpSide),
        warp_col_(static_cast<int>(threadIdx.x) / 32 / (kRows / kWarpSide) * kWarpSide),
        board_(reinterpret_cast<float*>(shared_) + threadIdx.x / 32 * kBoard) {}

  // The sums begin with c. REQUIRES: it comes before the first multiply().
  __device__ __forceinline__ void start_from(const View& c) {
#pragma unroll
    for (int i = 0; i < kAcross; ++i) {
      for (int r = lane_ / 16; r < 16; r += 2) {
        const std::int64_t row = row_ + warp_row_ + 16 * i + r, col = col_ + warp_col_ + lane_ % 16 * 4;
        *reinterpret_cast<float4*>(board_ + r * kBoardStride + lane_ % 16 * 4) =
            row < c.rows && col < c.cols ? c.quad(row, col) : make_float4(0, 0, 0, 0);
      }
      __syncwarp();
      on_board(i, [](float2* board, float& first, float& second) { first = board->x, second = board->y; });
      __syncwarp();
    }
  }

  // Adds the product of `depth` columns of A and rows of B.
  __device__ __forceinline__ void multiply(const HalfMatrix& a, const HalfMatrix& b, std::int64_t depth) {
    const int blocks = static_cast<int>((depth + kDepth - 1) / kDepth);
    if (blocks == 0) return;
    const int last = static_cast<int>((depth - std::int64_t{blocks - 1} * kDepth + kStep - 1) / kStep);
    __syncthreads();  // nobody reads what is in the slabs
#pragma unroll
    for (int block = 0; block < kStages - 1; ++block) fill(a, b, block, blocks);
    copy_async_wait<kStages - 2>();
    __syncthreads();
    load_a(0, 0, 0, 0), load_a(0, 0, 0, 1), load_a(0, 0, 0, 2), load_a(0, 0, 0, 3);  // a loop here stays one
    load_b(0, 0, 0, 0);
    for (int block = 0; block + 1 < blocks; ++block) multiply_block(a, b, block, blocks, kSteps, true);
    multiply_block(a, b, blocks - 1, blocks, last, false);
  }

  // c = sums + bias + add.
  __device__ __forceinline__ void finish(const View& c, const View& bias, const View& add) {
    __syncthreads();  // nobody reads the slabs: the boards stand there
#pragma unroll
    for (int i = 0; i < kAcross; ++i) {
      on_board(i, [](float2* board, float& first, float& second) { *board = make_float2(first, second); });
      __syncwarp();
      for (int r = lane_ / 16; r < 16; r += 2) {
        const std::int64_t row = row_ + warp_row_ + 16 * i + r, col = col_ + warp_col_ + lane_ % 16 * 4;
        const float4 sums = *reinterpret_cast<const float4*>(board_ + r * kBoardStride + lane_ % 16 * 4);
        if (row < c.rows && col < c.cols) c.put_quad(row, col, finished(sums, bias, add, row, col));
      }
      __syncwarp();
    }
  }

 private:
  // Slab `block` of both, and the end of a group of copies whether there is such a slab or not.
  __device__ __forceinline__ void fill(const HalfMatrix& a, const HalfMatrix& b, int block, int blocks) {
    if (block < blocks) {
      const std::int64_t k = std::int64_t{block} * kDepth;
      std::uint16_t* stage = shared_ + block % kStages * kStage;
      SlabA::template fill<aligned>(stage, a, transpose_a ? k : row_, transpose_a ? row_ : k);
      SlabB::template fill<aligned>(stage + SlabA::kElements, b, transpose_b ? col_ : k, transpose_b ? k : col_);
    }
    copy_async_commit();
  }

  // A block of kDepth, `steps` of 16. While a step multiplies, a's fragments of the next step and b's of the next 16
  // columns are loaded; so the barrier for the next slab stands before this one's last step, and what is filled then is
  // the slab before this one: all have left it.
  template <int step = 0>
  __device__ __forceinline__ void multiply_block(const HalfMatrix& a, const HalfMatrix& b, int block, int blocks,
                                                 int steps, bool more) {
    const bool next = step + 1 == kSteps && more;
    if (next) {
      copy_async_wait<kStages - 3>();
      __syncthreads();
      fill(a, b, block + kStages - 1, blocks);
    }
    multiply_step<step>(block, next ? block + 1 : block);
    if constexpr (step + 1 < kSteps)
      if (step + 1 < steps) multiply_block<step + 1>(a, b, block, blocks, steps, more);
  }
  // Behind the last step of all it loads some fragments for nobody.
  template <int step>
  __device__ __forceinline__ void multiply_step(int block, int next_block) {
    constexpr int kNext = (step + 1) % kSteps;
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      const bool within = j + 1 < kAcross;
      load_b((j + 1) % 2, within ? block : next_block, within ? step : kNext, (j + 1) % kAcross);
      load_a(kNext % 2, next_block, kNext, j);
#pragma unroll
      for (int i = 0; i < kAcross; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) multiply_add(sums_[i][2 * j + half], a_[step % 2][i], b_[j % 2][half]);
    }
  }

  // Fragments of 16 rows of A, of 16 columns of B. Lane l gives a row of matrix l / 8 of four: of A's, the rows' halves
  // come first, then k's; of B's, k's come first, so that those of eight columns are neighbours.
  __device__ __forceinline__ void load_a(int turn, int block, int step, int i) {
    const std::uint16_t* slab = shared_ + block % kStages * kStage;
    const int inner = lane_ % 8, odd = lane_ / 8 % 2, upper = lane_ / 16, row = warp_row_ + 16 * i;
    if constexpr (transpose_a)
      load_transposed(a_[turn][i], slab + SlabA::place(step * kStep + upper * 8 + inner, row / 8 + odd));
    else
      load_matrices(a_[turn][i], slab + SlabA::place(row + odd * 8 + inner, 2 * step + upper));
  }
  __device__ __forceinline__ void load_b(int turn, int block, int step, int j) {
    const std::uint16_t* slab = shared_ + block % kStages * kStage + SlabA::kElements;
    const int inner = lane_ % 8, odd = lane_ / 8 % 2, upper = lane_ / 16, col = warp_col_ + 16 * j;
    unsigned both[4];
    if constexpr (transpose_b)
      load_matrices(both, slab + SlabB::place(col + upper * 8 + inner, 2 * step + odd));
    else
      load_transposed(both, slab + SlabB::place(step * kStep + odd * 8 + inner, col / 8 + upper));
    b_[turn][0][0] = both[0], b_[turn][0][1] = both[1], b_[turn][1][0] = both[2], b_[turn][1][1] = both[3];
  }

  // Calls move(place on the board, sum, its neighbour) for the lane's sums of 16 rows.
  template <typename Move>
  __device__ __forceinline__ void on_board(int i, Move move) {
#pragma unroll
    for (int j = 0; j < 2 * kAcross; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int place = (lane_ / 4 + 8 * half) * kBoardStride + 8 * j + lane_ % 4 * 2;
        move(reinterpret_cast<float2*>(board_ + place), sums_[i][j][2 * half], sums_[i][j][2 * half + 1]);
      }
  }

  std::uint16_t* shared_;
  std::int64_t row_, col_;
  int lane_, warp_row_, warp_col_;
  float* board_;  // the warp's own: 16 rows of its sums, between rows of c and fragments
  float sums_[kAcross][2 * kAcross][4] = {};
  unsigned a_[2][kAcross][4], b_[2][2][2];  // fragments: of this step and the next, of these columns and the next
};

// How wide a tile is, by c's width alone: the widest that wastes at most a sixteenth, the narrowest for little.
inline int tile_columns(std::int64_t cols) {
  const std::int64_t covered = (cols + 255) / 256 * 256;
  if (16 * covered <= 17 * cols) return 256;
  return cols > 64 ? 128 : 64;
}

// Calls f(HalfTile type's columns as a constant).
template <int value>
struct Number {
  static constexpr int kValue = value;
};
template <typename F>
void with_tile_columns(std::int64_t cols, F f) {
  switch (tile_columns(cols)) {
    case 256:
      return f(Number<256>{});
    case 128:
      return f(Number<128>{});
    default:
      return f(Number<64>{});
  }
}

}  // namespace troupe::cuda
