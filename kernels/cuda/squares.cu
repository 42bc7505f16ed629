// SumSquares: float64, each block of 4,096 elements (row-major) left to right, then the blocks in order: the CPU's bits;
// and the sum of the elements' bit patterns. The products are exact in float64, so that a fused multiply-add rounds as
// the sum alone does. x is read once; what isn't float32 without gaps goes through a copy that is.
// A lane of a warp sums a block. All lanes fetch the next tiles of the warp's blocks in the meantime, so that reads are of
// whole lines and enough are under way. A block is a chain of 4,096 additions, some 40 us: neighbouring ops go together.
#include "kernels/cuda/batch.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/move.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {

constexpr int kBlock = 4096, kLanes = 32;
constexpr int kTile = 32, kPitch = kTile + 4, kStages = 5;  // elements of a block; with space against bank conflicts
constexpr int kTiles = kBlock / kTile, kTileQuads = kTile / 4,
              kFetches = kTileQuads;  // quads of a tile that a lane fetches
constexpr int kGroup = 8;             // elements that are widened ahead of the chain
constexpr std::size_t kShared = std::size_t{kStages} * kLanes * kPitch * sizeof(float);
constexpr int kFoldThreads = 256, kFoldTile = 2048;

struct Squares {
  const float* x;
  std::int64_t count;
  double* out;
  unsigned* bits;
};
// A block of threads is a warp; its lanes' sums stand at lane + kLanes * its number.
using AllSquares = Batch<Squares, 104>;

// The lane's part of the next tiles: always the same quad of kFetches blocks of the 32.
class Fetch {
 public:
  __device__ Fetch(const Squares& op, std::int64_t first)
      : row_(static_cast<int>(threadIdx.x) / kTileQuads), col_(static_cast<int>(threadIdx.x) % kTileQuads * 4) {
    x_ = op.x;
    at_ = (first + row_) * kBlock + col_;
    count_ = op.count;
    whole_ = (first + kLanes) * kBlock <= op.count;
  }
  // Zeros beyond the last element.
  __device__ void next(float* stage) {
    constexpr int kRows = kLanes / kTileQuads;  // blocks that the warp fetches at once
    float* to = stage + row_ * kPitch + col_;
    if (whole_) {
#pragma unroll
      for (int i = 0; i < kFetches; ++i) copy_async(to + i * kRows * kPitch, x_ + at_ + i * kRows * kBlock);
    } else {
      for (int i = 0; i < kFetches; ++i) {
        const std::int64_t at = at_ + i * kRows * kBlock;
        const int bytes = static_cast<int>(min(max(count_ - at, std::int64_t{0}), std::int64_t{4})) * 4;
        copy_async(to + i * kRows * kPitch, x_ + (bytes > 0 ? at : 0), bytes);
      }
    }
    at_ += kTile;
  }

 private:
  const float* x_;
  std::int64_t at_, count_;
  int row_, col_;
  bool whole_;
};

__device__ void widen_group(double (&to)[kGroup], unsigned& bits, const float4* from) {
#pragma unroll
  for (int i = 0; i < kGroup / 4; ++i) {
    const float4 v = from[i];
    to[4 * i] = static_cast<double>(v.x), to[4 * i + 1] = static_cast<double>(v.y);
    to[4 * i + 2] = static_cast<double>(v.z), to[4 * i + 3] = static_cast<double>(v.w);
    bits += __float_as_uint(v.x) + __float_as_uint(v.y) + __float_as_uint(v.z) + __float_as_uint(v.w);
  }
}

__device__ void add_squares(double& sum, const double (&group)[kGroup]) {
#pragma unroll
  for (const double wide : group) sum = fma(wide, wide, sum);
}

__global__ void __launch_bounds__(kLanes)
    sum_blocks(const __grid_constant__ AllSquares all, double* sums, unsigned* patterns) {
  auto* stages = dynamic_shared<float>();
  const int item = all.item_of(blockIdx.x), lane = static_cast<int>(threadIdx.x);
  const std::int64_t first = std::int64_t{blockIdx.x - all.first_block[item]} * kLanes;
  Fetch fetch(all.items[item], first);
  for (int tile = 0; tile < kStages - 1; ++tile) {
    fetch.next(stages + tile * kLanes * kPitch);
    copy_async_commit();
  }
  double sum = 0;
  unsigned bits = 0;
  int stage = 0, free = kStages - 1;
  for (int tile = 0; tile < kTiles; ++tile) {
    copy_async_wait<kStages - 2>();
    __syncwarp();  // the tile is there for all, and everybody is done with the one before, whose place is next
    if (tile + kStages - 1 < kTiles) fetch.next(stages + free * kLanes * kPitch);
    copy_async_commit();
    const auto* own = reinterpret_cast<const float4*>(stages + (stage * kLanes + lane) * kPitch);
    double group[2][kGroup];
    widen_group(group[0], bits, own);
#pragma unroll
    for (int g = 0; g < kTile / kGroup; ++g) {
      if (g + 1 < kTile / kGroup) widen_group(group[(g + 1) % 2], bits, own + (g + 1) * kGroup / 4);
      add_squares(sum, group[g % 2]);
    }
    stage = stage + 1 == kStages ? 0 : stage + 1;
    free = free + 1 == kStages ? 0 : free + 1;
  }
  sums[blockIdx.x * kLanes + lane] = sum;
  patterns[blockIdx.x * kLanes + lane] = bits;
}

// A block of threads an op: the first adds the sums in order, all of them the patterns, modulo 2^32 in any order.
__global__ void fold_blocks(const __grid_constant__ AllSquares all, const double* sums, const unsigned* patterns) {
  __shared__ double tile[kFoldTile];
  __shared__ unsigned whole;
  const Squares own_op = all.items[blockIdx.x];
  const std::int64_t blocks = (own_op.count + kBlock - 1) / kBlock;
  sums += std::int64_t{all.first_block[blockIdx.x]} * kLanes;
  patterns += std::int64_t{all.first_block[blockIdx.x]} * kLanes;
  if (threadIdx.x == 0) whole = 0;
  double total = 0;
  unsigned own = 0;
  for (std::int64_t begin = 0; begin < blocks; begin += kFoldTile) {
    const int count = static_cast<int>(min(blocks - begin, std::int64_t{kFoldTile}));
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kFoldThreads) {
      tile[i] = sums[begin + i];
      own += patterns[begin + i];
    }
    __syncthreads();
    if (threadIdx.x != 0) continue;
#pragma unroll 16
    for (int i = 0; i < count; ++i) total += tile[i];
  }
  __syncthreads();
  atomicAdd(&whole, own);
  __syncthreads();
  if (threadIdx.x != 0) return;
  *own_op.out = total;
  *own_op.bits = whole;
}

Squares squares_of(const SumSquares& op, const void* x) {
  return {static_cast<const float*>(x), op.x.elements(), static_cast<double*>(op.out.data),
          static_cast<unsigned*>(op.bits.data)};
}
unsigned warps_of(const SumSquares& op) { return blocks_for(op.x.elements(), std::int64_t{kBlock} * kLanes); }
bool is_plain(const Tensor& x) { return x.dtype == Dtype::f32 && x.contiguous() && rows_aligned(x); }

void launch_squares(const AllSquares& all, Queue& queue) {
  static_assert(sizeof all + 2 * sizeof(void*) <= kParametersMax);
  auto* sums = queue.take<double>(std::int64_t{all.blocks()} * kLanes);
  auto* patterns = queue.take<unsigned>(std::int64_t{all.blocks()} * kLanes);
  launch(queue, all.blocks(), kLanes, kShared, sum_blocks, all, sums, patterns);
  launch(queue, static_cast<unsigned>(all.count), kFoldThreads, 0, fold_blocks, all, sums, patterns);
}

}  // namespace

void run(const SumSquares& op, Queue& queue) {
  const void* x = op.x.data;
  if (!is_plain(op.x)) {
    const Tensor plain{queue.take<float>(op.x.elements()), op.x.rows, op.x.cols, op.x.cols, Dtype::f32};
    move_rows(op.x, {}, plain, Move::straight, queue);
    x = plain.data;
  }
  AllSquares one;
  one.add(squares_of(op, x), warps_of(op));
  launch_squares(one, queue);
}

std::size_t run_square_sums(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  AllSquares all;
  Touched<1, 2> touched;
  std::size_t i = first;
  for (; i < ops.size() && !all.full(); ++i) {
    const auto* op = std::get_if<SumSquares>(ops[i]);
    if (op == nullptr || !is_plain(op->x) || !touched.take({op->x}, {op->out, op->bits})) break;
    check(*ops[i]);
    all.add(squares_of(*op, op->x.data), warps_of(*op));
  }
  if (all.count > 0) launch_squares(all, queue);
  return i - first;
}

}  // namespace troupe::cuda
