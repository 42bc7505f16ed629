// SumSquares: float64, each block of 4,096 elements (row-major) left to right, then the blocks in order: the CPU's bits;
// and the sum of the elements' bit patterns. The products are exact in float64, so that a fused multiply-add rounds as
// the sum alone does. x is read once; what isn't float32 without gaps goes through a copy that is.
// A warp sums kTogether blocks side by side, a lane each. All lanes fetch the next tiles of those blocks in the meantime,
// so that reads are of whole lines and enough are under way. A block is a chain of 4,096 additions: some 20 us.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/move.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kBlock = 4096, kTogether = 16, kLanes = 32;
constexpr int kTile = 32, kPitch = kTile + 4, kStages = 8;  // elements of a block; with space against bank conflicts
constexpr int kTiles = kBlock / kTile, kTileQuads = kTile / 4;
constexpr std::size_t kShared = std::size_t{kStages} * kTogether * kPitch * sizeof(float);
constexpr int kFoldThreads = 256, kFoldTile = 2048;

// Fetches tile `tile` of blocks first .. first + kTogether - 1; zeros beyond the last element.
__device__ void fetch_tile(const float* x, std::int64_t count, std::int64_t first, int tile, float* stages) {
  float* stage = stages + tile % kStages * kTogether * kPitch;
  for (int i = static_cast<int>(threadIdx.x); i < kTogether * kTileQuads; i += kLanes) {
    const int block = i / kTileQuads, quad = i % kTileQuads;
    const std::int64_t at = (first + block) * kBlock + tile * kTile + quad * 4;
    const int bytes = static_cast<int>(min(max(count - at, std::int64_t{0}), std::int64_t{4})) * 4;
    float* to = stage + block * kPitch + quad * 4;
    if (bytes == 16)
      copy_async(to, x + at);
    else
      copy_async(to, x + (bytes > 0 ? at : 0), bytes);
  }
}

__device__ void add_square(double& sum, unsigned& bits, float x) {
  const auto wide = static_cast<double>(x);
  sum = fma(wide, wide, sum);
  bits += __float_as_uint(x);
}

__global__ void sum_blocks(const float* x, std::int64_t count, std::int64_t blocks, double* sums, unsigned* patterns) {
  auto* stages = dynamic_shared<float>();
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t first = std::int64_t{blockIdx.x} * kTogether;
  for (int tile = 0; tile < kStages - 1; ++tile) {
    fetch_tile(x, count, first, tile, stages);
    copy_async_commit();
  }
  double sum = 0;
  unsigned bits = 0;
  for (int tile = 0; tile < kTiles; ++tile) {
    if (tile + kStages - 1 < kTiles) fetch_tile(x, count, first, tile + kStages - 1, stages);
    copy_async_commit();
    copy_async_wait<kStages - 1>();
    __syncwarp();
    if (lane < kTogether) {
      const auto* own = reinterpret_cast<const float4*>(stages + (tile % kStages * kTogether + lane) * kPitch);
      for (int quad = 0; quad < kTileQuads; ++quad) {
        const float4 v = own[quad];
        add_square(sum, bits, v.x), add_square(sum, bits, v.y);
        add_square(sum, bits, v.z), add_square(sum, bits, v.w);
      }
    }
    __syncwarp();  // the stage is free
  }
  if (lane >= kTogether || first + lane >= blocks) return;
  sums[first + lane] = sum;
  patterns[first + lane] = bits;
}

// One block of threads: the first adds the sums in order, all of them the patterns, modulo 2^32 in any order.
__global__ void fold_blocks(const double* sums, const unsigned* patterns, std::int64_t blocks, double* out,
                            unsigned* bits) {
  __shared__ double tile[kFoldTile];
  __shared__ unsigned all;
  if (threadIdx.x == 0) all = 0;
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
  atomicAdd(&all, own);
  __syncthreads();
  if (threadIdx.x != 0) return;
  *out = total;
  *bits = all;
}

}  // namespace

void run(const SumSquares& op, Queue& queue) {
  const std::int64_t count = op.x.elements(), blocks = (count + kBlock - 1) / kBlock;
  const auto* x = static_cast<const float*>(op.x.data);
  if (op.x.dtype != Dtype::f32 || !op.x.contiguous() || reinterpret_cast<std::uintptr_t>(x) % 16 != 0) {
    const Tensor plain{queue.take<float>(count), op.x.rows, op.x.cols, op.x.cols, Dtype::f32};
    move_rows(op.x, {}, plain, Move::straight, queue);
    x = static_cast<const float*>(plain.data);
  }
  auto* sums = queue.take<double>(blocks);
  auto* patterns = queue.take<unsigned>(blocks);
  launch(queue, blocks_for(blocks, kTogether), kLanes, kShared, sum_blocks, x, count, blocks, sums, patterns);
  launch(queue, 1, kFoldThreads, 0, fold_blocks, sums, patterns, blocks, static_cast<double*>(op.out.data),
         static_cast<unsigned*>(op.bits.data));
}

}  // namespace troupe::cuda
