// The gate's scores = sigmoid(x weight^T); x: (N, D) f32 or bf16, weight: (E, D) f32.
// Each logit is one chain of float32 fused multiply-adds in increasing column, as the CPU's, whatever the tile: tensor
// cores don't have that order. A block has a tile of rows and experts, staged in shared memory a slice of columns at a
// time; a thread has some rows x some columns of chains: more of them read less for each multiply-add, fewer leave more
// warps to wait for one another; small tiles spread few rows over the processors.
#include "kernels/cuda/math.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kTilesWanted = 120;  // far fewer leave processors idle: then smaller tiles are better

// Rows of x or of weight. T: float or std::uint16_t.
template <typename T>
struct Operand {
  static constexpr int kPiece = 16 / sizeof(T);  // elements of 16 bytes
  const T* data;
  std::int64_t rows, cols, stride;
  bool pieces;  // 16 bytes can be copied at once

  explicit Operand(const Tensor& t)
      : data(t.row<const T>(0)), rows(t.rows), cols(t.cols), stride(t.stride), pieces(rows_aligned(t)) {}
};

// Brings `count` rows from `first` into stages, the next `depth` columns at a time; zeros beyond the last row and column.
// A thread has 16 bytes of every kStep-th row.
template <typename T, int depth, int count, int threads>
class Supply {
 public:
  __device__ Supply(const Operand<T>& x, std::int64_t first)
      : x_(x),
        row_(static_cast<int>(threadIdx.x) / kPieces),
        left_(static_cast<int>(min(x.rows - first, std::int64_t{count})) - row_),
        col_(static_cast<int>(threadIdx.x) % kPieces * kPiece),
        from_(x.data + (left_ > 0 ? first + row_ : 0) * x.stride) {}

  __device__ void bring(T* stage) {
    T* to = stage + row_ * (depth + kPiece) + static_cast<int>(threadIdx.x) % kPieces * kPiece;
    const int there = static_cast<int>(max(min(x_.cols - col_, std::int64_t{kPiece}), std::int64_t{0}));
    const T* from = from_ + (there > 0 ? col_ : 0);
#pragma unroll
    for (int i = 0; i < count; i += kStep) {
      const int own = i < left_ ? there : 0;
      if (x_.pieces)
        copy_async(to, own > 0 ? from : x_.data, own * static_cast<int>(sizeof(T)));
      else
        for (int j = 0; j < kPiece; ++j) to[j] = j < own ? from[j] : T{};
      to += kStep * (depth + kPiece);
      from += kStep * x_.stride;
    }
    col_ += depth;
  }

 private:
  static constexpr int kPiece = Operand<T>::kPiece, kPieces = depth / kPiece, kStep = threads / kPieces;
  static_assert(threads % kPieces == 0 && count % kStep == 0);
  const Operand<T>& x_;
  int row_, left_;
  std::int64_t col_;
  const T* from_;
};

// 16 bytes of a staged row, and four of their elements.
__device__ float4 piece_at(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ uint4 piece_at(const std::uint16_t* from) { return *reinterpret_cast<const uint4*>(from); }
__device__ float4 four(float4 piece, int) { return piece; }
__device__ float4 four(uint4 piece, int part) {
  return widen(part == 0 ? make_uint2(piece.x, piece.y) : make_uint2(piece.z, piece.w));
}

// How a block's threads lie on its tile: `across` of them have its columns, a warp is 4 x 8 threads. depth: columns of a
// slice. A staged row is 16 bytes longer than its slice: neighbours begin in other banks.
template <typename T, int down, int across, int rows_each, int cols_each, int depth_, int stages_>
struct Form {
  using Type = T;
  static constexpr int kDown = down, kAcross = across, kThreads = down * across, kRowsEach = rows_each,
                       kColsEach = cols_each, kDepth = depth_, kStages = stages_;
  static constexpr int kRows = down * rows_each, kCols = across * cols_each;
  static constexpr int kPitch = kDepth + Operand<T>::kPiece, kWeightPitch = kDepth + Operand<float>::kPiece;
  struct Staged {
    T x[kStages][kRows * kPitch];
    float weight[kStages][kCols * kWeightPitch];
  };

  static __device__ int row() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return warp / (across / 8) * 4 + lane / 8;
  }
  static __device__ int column() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return warp % (across / 8) * 8 + lane % 8;
  }
  static std::int64_t tiles(const Router& op) {
    return static_cast<std::int64_t>(blocks_for(op.x.rows, kRows)) * blocks_for(op.weight.rows, kCols);
  }
};

// sums += a slice's products. x, weight: the thread's first staged rows; its others follow kDown and kAcross rows behind
// each other.
template <typename Form>
__device__ void add_slice(const typename Form::Type* x, const float* weight,
                          float (&sums)[Form::kRowsEach][Form::kColsEach]) {
  constexpr int kPiece = Operand<typename Form::Type>::kPiece, kRows = Form::kRowsEach;
#pragma unroll 2
  for (int k = 0; k < Form::kDepth; k += kPiece) {
    decltype(piece_at(x)) pieces[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) pieces[i] = piece_at(x + i * Form::kDown * Form::kPitch + k);
#pragma unroll
    for (int part = 0; part < kPiece / 4; ++part) {
      float4 a[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) a[i] = four(pieces[i], part);
#pragma unroll
      for (int j = 0; j < Form::kColsEach; ++j) {
        const float4 b = piece_at(weight + j * Form::kAcross * Form::kWeightPitch + k + part * 4);
#pragma unroll
        for (int i = 0; i < kRows; ++i) sums[i][j] = fmaf(a[i].x, b.x, sums[i][j]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) sums[i][j] = fmaf(a[i].y, b.y, sums[i][j]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) sums[i][j] = fmaf(a[i].z, b.z, sums[i][j]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) sums[i][j] = fmaf(a[i].w, b.w, sums[i][j]);
      }
    }
  }
}

template <typename Form>
__global__ void __launch_bounds__(Form::kThreads, 1)
    scores_tile(const __grid_constant__ Operand<typename Form::Type> x, const __grid_constant__ Operand<float> weight,
                View scores, RowsBalance rows) {
  auto& tile = *dynamic_shared<typename Form::Staged>();
  constexpr int kStages = Form::kStages, kDepth = Form::kDepth, kThreads = Form::kThreads;
  const int row = Form::row(), column = Form::column();
  const std::int64_t first_row = std::int64_t{blockIdx.y} * Form::kRows,
                     first_col = std::int64_t{blockIdx.x} * Form::kCols;
  if (blockIdx.x == 0 && blockIdx.y == 0)
    for (std::int64_t i = threadIdx.x; i < rows.size; i += kThreads) rows.chosen[i] = 0;
  const int slices = static_cast<int>((x.cols + kDepth - 1) / kDepth);
  Supply<typename Form::Type, kDepth, Form::kRows, kThreads> rows_of_x(x, first_row);
  Supply<float, kDepth, Form::kCols, kThreads> rows_of_weight(weight, first_col);
  const auto stage = [&](int slice) {
    if (slice < slices) {
      rows_of_x.bring(tile.x[slice % kStages]);
      rows_of_weight.bring(tile.weight[slice % kStages]);
    }
    copy_async_commit();
  };
  float sums[Form::kRowsEach][Form::kColsEach] = {};
  for (int slice = 0; slice < kStages - 1; ++slice) stage(slice);
  for (int slice = 0; slice < slices; ++slice) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // the slice is there for all, and everybody is done with the one before, whose place is next
    stage(slice + kStages - 1);
    add_slice<Form>(tile.x[slice % kStages] + row * Form::kPitch,
                    tile.weight[slice % kStages] + column * Form::kWeightPitch, sums);
  }
#pragma unroll
  for (int i = 0; i < Form::kRowsEach; ++i)
#pragma unroll
    for (int j = 0; j < Form::kColsEach; ++j) {
      const std::int64_t t = first_row + row + i * Form::kDown, e = first_col + column + j * Form::kAcross;
      if (t < scores.rows && e < scores.cols) *scores.at<float>(t, e) = sigmoid(sums[i][j]);
    }
}

template <typename Form>
void score_by(const Router& op, const RowsBalance& rows, Queue& queue) {
  const dim3 grid(blocks_for(op.weight.rows, Form::kCols), blocks_for(op.x.rows, Form::kRows));
  launch(queue, grid, Form::kThreads, sizeof(typename Form::Staged), scores_tile<Form>,
         Operand<typename Form::Type>(op.x), Operand<float>(op.weight), op.scores, rows);
}

// The fewer tiles there are, the smaller they get, and the more slices are under way.
template <typename T>
void score(const Router& op, const RowsBalance& rows, Queue& queue) {
  if (Form<T, 16, 16, 8, 4, 64, 3>::tiles(op) >= kTilesWanted)
    return score_by<Form<T, 16, 16, 8, 4, 64, 3>>(op, rows, queue);
  if (Form<T, 16, 8, 4, 4, 32, 4>::tiles(op) >= kTilesWanted)
    return score_by<Form<T, 16, 8, 4, 4, 32, 4>>(op, rows, queue);
  score_by<Form<T, 16, 8, 2, 2, 32, 8>>(op, rows, queue);
}

}  // namespace

void router_scores(const Router& op, const RowsBalance& rows, Queue& queue) {
  op.x.dtype == Dtype::f32 ? score<float>(op, rows, queue) : score<std::uint16_t>(op, rows, queue);
}

}  // namespace troupe::cuda
