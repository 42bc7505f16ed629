// c = (accumulate ? c : 0) + A^T B for a c of few elements and a long sum, such as the gate's weight gradient; A (K, M)
// float32, B (K, N) float32 or bfloat16, rows aligned to 16 bytes. The law is product.cu's: an element is one chain of
// fused multiply-adds in increasing k. With so few chains what counts is how many processors share them: a block has
// only kRows x kColumns elements, a thread four of them, which is what hides a multiply-add's latency.
// The slabs come through kStages stages of shared memory; within one, a thread reads kGroup steps of k ahead.
#include "kernels/cuda/mma.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kRows = 16, kColumns = 32, kDepth = 128, kStages = 4;
constexpr std::int64_t kFewSquares = 100;  // of 64 x 64: product.cu's least tile

// An operand's rows k on the way into a stage: `width` columns from `first`. T: float or std::uint16_t (bfloat16). A thread
// brings 16 bytes of every kStep-th row, always of the same columns; zeros beyond the last row and column.
template <typename T, int width, int threads>
class Supply {
 public:
  __device__ Supply(const View& x, std::int64_t first)
      : x_(x), row_(static_cast<int>(threadIdx.x) / kPieces), col_(static_cast<int>(threadIdx.x) % kPieces * kPiece) {
    const std::int64_t left = min(max(x.cols - first - col_, std::int64_t{0}), std::int64_t{kPiece});
    bytes_ = static_cast<int>(left * sizeof(T));
    from_ = left > 0 ? x.at<const T>(row_, first + col_) : x.at<const T>(0, 0);
  }
  // The next kDepth rows, of which k is the first.
  __device__ void bring(T (*to)[width], std::int64_t k) {
#pragma unroll
    for (int i = 0; i < kDepth / kStep; ++i) {
      const int row = row_ + i * kStep;
      const bool there = k + row < x_.rows;
      copy_async(&to[row][col_], there ? from_ : x_.at<const T>(0, 0), there ? bytes_ : 0);
      from_ += kStep * x_.stride;
    }
  }

 private:
  static constexpr int kPiece = 16 / sizeof(T), kPieces = width / kPiece, kStep = threads / kPieces;
  const View& x_;
  const T* from_;
  int row_, col_, bytes_;
};

template <typename T>
struct Stage {
  float a[kDepth][kRows];
  T b[kDepth][kColumns];
};

// Neighbours of a staged row, and what they are.
template <typename T, int count>
struct Few {
  static constexpr int kWords = count * static_cast<int>(sizeof(T)) / 4;
  unsigned words[kWords];

  __device__ void read(const T* from) {
    if constexpr (kWords == 4) {
      const uint4 bits = *reinterpret_cast<const uint4*>(from);
      words[0] = bits.x, words[1] = bits.y, words[2] = bits.z, words[3] = bits.w;
    } else if constexpr (kWords == 2) {
      const uint2 bits = *reinterpret_cast<const uint2*>(from);
      words[0] = bits.x, words[1] = bits.y;
    } else {
      words[0] = *reinterpret_cast<const unsigned*>(from);
    }
  }
  __device__ float value(int i) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
    return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000U);
  }
};

// What a thread multiplies at `group` steps of k: `rows` numbers of A, `cols` of B.
template <typename T, int rows, int cols, int group>
struct Group {
  Few<float, rows> a[group];
  Few<T, cols> b[group];

  __device__ void read(const Stage<T>& stage, int k, int row, int col) {
#pragma unroll
    for (int i = 0; i < group; ++i) {
      a[i].read(&stage.a[k + i][row]);
      b[i].read(&stage.b[k + i][col]);
    }
  }
  // The first `count`: what isn't there is not added, not even as zeros, which would change a -0.
  __device__ void multiply(float (&sums)[rows][cols], int count) const {
#pragma unroll
    for (int i = 0; i < group; ++i) {
      if (i >= count) break;
      float right[cols];
#pragma unroll
      for (int n = 0; n < cols; ++n) right[n] = b[i].value(n);
#pragma unroll
      for (int m = 0; m < rows; ++m)
#pragma unroll
        for (int n = 0; n < cols; ++n) sums[m][n] = fmaf(a[i].value(m), right[n], sums[m][n]);
    }
  }
};

template <int group, typename T, int rows, int cols>
__device__ void multiply_slab(const Stage<T>& stage, float (&sums)[rows][cols], int row, int col, int depth) {
  Group<T, rows, cols, group> now, next;
  if (depth == kDepth) {
    now.read(stage, 0, row, col);
#pragma unroll 1
    for (int k = 0; k < kDepth; k += 2 * group) {
      next.read(stage, k + group, row, col);
      now.multiply(sums, group);
      now.read(stage, (k + 2 * group) % kDepth, row, col);
      next.multiply(sums, group);
    }
    return;
  }
  for (int k = 0; k < depth; k += group) {
    now.read(stage, k, row, col);
    now.multiply(sums, depth - k);
  }
}

template <typename T, int rows, int cols, int group>
__global__ __launch_bounds__(kRows* kColumns / (rows * cols)) void thin_tiles(const __grid_constant__ View a,
                                                                              const __grid_constant__ View b, View c,
                                                                              bool accumulate) {
  constexpr int kThreads = kRows * kColumns / (rows * cols), kAcross = kColumns / cols;
  auto* stages = dynamic_shared<Stage<T>>();
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kRows, first_col = std::int64_t{blockIdx.y} * kColumns;
  const int row = static_cast<int>(threadIdx.x) / kAcross * rows, col = static_cast<int>(threadIdx.x) % kAcross * cols;
  const auto inside = [&](int i, int j) { return first_row + row + i < c.rows && first_col + col + j < c.cols; };
  float sums[rows][cols] = {};
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < cols; ++j)
      if (accumulate && inside(i, j)) sums[i][j] = c.get(first_row + row + i, first_col + col + j);

  Supply<float, kRows, kThreads> supply_a(a, first_row);
  Supply<T, kColumns, kThreads> supply_b(b, first_col);
  const int slabs = static_cast<int>((a.rows + kDepth - 1) / kDepth);
  const auto stage = [&](int slab) {
    if (slab < slabs) {
      supply_a.bring(stages[slab % kStages].a, std::int64_t{slab} * kDepth);
      supply_b.bring(stages[slab % kStages].b, std::int64_t{slab} * kDepth);
    }
    copy_async_commit();
  };
  for (int slab = 0; slab < kStages - 1; ++slab) stage(slab);
  for (int slab = 0; slab < slabs; ++slab) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // the slab is there for all, and everybody is done with the one before, whose place is next
    stage(slab + kStages - 1);
    multiply_slab<group>(stages[slab % kStages], sums, row, col,
                         static_cast<int>(min(a.rows - std::int64_t{slab} * kDepth, std::int64_t{kDepth})));
  }
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < cols; ++j)
      if (inside(i, j)) c.put(first_row + row + i, first_col + col + j, sums[i][j]);
}

template <typename T>
void launch_thin(const Product& op, Queue& queue) {
  constexpr int kSide = 2, kGroup = 8;
  launch(queue, dim3(blocks_for(op.c.rows, kRows), blocks_for(op.c.cols, kColumns)), kRows * kColumns / (kSide * kSide),
         sizeof(Stage<T>) * kStages, thin_tiles<T, kSide, kSide, kGroup>, op.a, op.b, op.c, op.accumulate);
}

}  // namespace

bool multiply_thin(const Product& op, Queue& queue) {
  if (!op.transpose_a || op.transpose_b || op.bias || op.add || op.a.dtype != Dtype::f32) return false;
  if (!rows_aligned(op.a) || !rows_aligned(op.b)) return false;
  if (std::int64_t{blocks_for(op.c.rows, 64)} * blocks_for(op.c.cols, 64) > kFewSquares) return false;
  op.b.dtype == Dtype::f32 ? launch_thin<float>(op, queue) : launch_thin<std::uint16_t>(op, queue);
  return true;
}

}  // namespace troupe::cuda
