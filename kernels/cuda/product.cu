// c = (accumulate ? c : 0) + A B + bias + add where an operand is float32; c is assigned, or its own start. A (M, K) and
// B (K, N) stand as they are or transposed. The law: an element is one chain of fused multiply-adds in increasing k, then
// bias, then add, rounded once: the CPU's bits. (Both bfloat16: product_half.cu; few elements:
// product_thin.cu; a short sum: product_shallow.cu.)
// A block computes a square of c from slabs of kDepth columns of A and rows of B in shared memory; while it multiplies one
// slab, the next is on its way into registers. A thread has 8 x 8 elements: four squares of 4 x 4, half a tile apart. Which
// tile it is changes no bit.
#include "kernels/cuda/product.h"

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/product_scaled.h"
#include "kernels/cuda/product_wgmma.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kDepth = 16, kSmallTile = 64, kLargeTile = 128;
constexpr std::int64_t kManyBlocks = 264;  // two for every multiprocessor: then large tiles, which read less

// An operand as the product reads it: `along`: k runs along its rows, else down its columns.
struct Side {
  View x;
  bool along;
};

// A slab of an operand, depth-major: element (k, i) at slab[k][i], i of the tile's rows (or columns).
template <int size, bool whole>
class Slab {
 public:
  static constexpr int kThreads = size * size / 64, kQuads = size * kDepth / 4 / kThreads, kStride = size + 4;

  __device__ void read(const Side& side, int first, int k) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int number = static_cast<int>(threadIdx.x) + i * kThreads;
      const int row = side.along ? first + number / (kDepth / 4) : k + number / (size / 4);
      const int col = side.along ? k + number % (kDepth / 4) * 4 : first + number % (size / 4) * 4;
      quads_[i] = row < side.x.rows ? fetch<whole>(side.x, row, col) : make_uint4(0, 0, 0, 0);
    }
  }
  __device__ void write(const Side& side, float (&slab)[kDepth][kStride]) const {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int number = static_cast<int>(threadIdx.x) + i * kThreads;
      const float4 quad = floats(side.x, quads_[i]);
      if (side.along) {
        const int at = number / (kDepth / 4), k = number % (kDepth / 4) * 4;
        slab[k][at] = quad.x, slab[k + 1][at] = quad.y, slab[k + 2][at] = quad.z, slab[k + 3][at] = quad.w;
      } else {
        *reinterpret_cast<float4*>(&slab[number / (size / 4)][number % (size / 4) * 4]) = quad;
      }
    }
  }

 private:
  uint4 quads_[kQuads];
};

__device__ void read_eight(float (&to)[8], const float* from, int half) {
  const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + half);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// The last slab may be less deep: what isn't there is not added, not even as zeros, which would change a -0.
template <int size>
__device__ __forceinline__ void multiply(float (&sums)[8][8], const float (&a)[kDepth][size + 4],
                                         const float (&b)[kDepth][size + 4], int row, int col, int depth) {
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    if (k >= depth) break;
    float left[8], right[8];
    read_eight(left, &a[k][row], size / 2);
    read_eight(right, &b[k][col], size / 2);
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
  }
}

// A thread's 8 x 8 elements of c: quads of row(i), i of 0..7, and column(half).
template <int size, bool whole>
struct Own {
  int first_row, first_col;

  __device__ Own()
      : first_row(static_cast<int>(blockIdx.x * size + threadIdx.x / (size / 8) * 4)),
        first_col(static_cast<int>(blockIdx.y * size + threadIdx.x % (size / 8) * 4)) {}
  __device__ int row(int i) const { return first_row + i % 4 + i / 4 * (size / 2); }
  __device__ int col(int half) const { return first_col + half * (size / 2); }

  // Four rows at once, so that all their reads are under way: too many would crowd out the sums.
  __device__ void read(uint4 (&bits)[4][2], const View& x, int first) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        bits[i][half] = row(first + i) < x.rows ? fetch<whole>(x, row(first + i), col(half)) : make_uint4(0, 0, 0, 0);
  }
  __device__ void start(float (&sums)[8][8], const View& c) const {
#pragma unroll
    for (int first = 0; first < 8; first += 4) {
      uint4 bits[4][2];
      read(bits, c, first);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float4 quad = floats(c, bits[i / 2][i % 2]);
        float* to = &sums[first + i / 2][i % 2 * 4];
        to[0] = quad.x, to[1] = quad.y, to[2] = quad.z, to[3] = quad.w;
      }
    }
  }
  __device__ void finish(const float (&sums)[8][8], const View& c, const View& bias, const View& add) const {
#pragma unroll
    for (int first = 0; first < 8; first += 4) {
      uint4 bits[4][2] = {};
      if (add) read(bits, add, first);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int t = row(first + i / 2), at = col(i % 2);
        const float* from = &sums[first + i / 2][i % 2 * 4];
        float4 quad = make_float4(from[0], from[1], from[2], from[3]);
        if (bias) quad = sum(quad, floats(bias, fetch<whole>(bias, 0, at)));
        if (add) quad = sum(quad, floats(add, bits[i / 2][i % 2]));
        if (t < c.rows) store<whole>(c, t, at, quad);
      }
    }
  }
};

template <int size, bool whole>
__global__ __launch_bounds__(size* size / 64,
                             size == kLargeTile ? 2 : 6) void product_squares(const __grid_constant__ Side a,
                                                                              const __grid_constant__ Side b, View c,
                                                                              View bias, View add, bool accumulate,
                                                                              int depth) {
  __shared__ float left[2][kDepth][size + 4], right[2][kDepth][size + 4];
  constexpr int kAcross = size / 8;
  const int row = static_cast<int>(threadIdx.x) / kAcross * 4, col = static_cast<int>(threadIdx.x) % kAcross * 4;
  const int first_row = static_cast<int>(blockIdx.x) * size, first_col = static_cast<int>(blockIdx.y) * size;
  const Own<size, whole> own;
  Slab<size, whole> next_left, next_right;
  next_left.read(a, first_row, 0);
  next_right.read(b, first_col, 0);
  float sums[8][8] = {};
  if (accumulate) own.start(sums, c);
  int turn = 0;
  for (int k = 0; k < depth; k += kDepth, turn ^= 1) {
    next_left.write(a, left[turn]);
    next_right.write(b, right[turn]);
    __syncthreads();  // whoever is here has read the slab before the last
    if (k + kDepth < depth) {
      next_left.read(a, first_row, k + kDepth);
      next_right.read(b, first_col, k + kDepth);
      multiply<size>(sums, left[turn], right[turn], row, col, kDepth);
    } else {
      multiply<size>(sums, left[turn], right[turn], row, col, depth - k);
    }
  }
  own.finish(sums, c, bias, add);
}

template <int size>
void launch_squares(const Product& op, Queue& queue) {
  const Side a{op.a, !op.transpose_a}, b{op.b, op.transpose_b};
  const View c = op.c, bias = op.bias, add = op.add;
  const std::int64_t depth = op.transpose_a ? op.a.rows : op.a.cols;
  launch(queue, dim3(blocks_for(op.c.rows, size), blocks_for(op.c.cols, size)), size * size / 64, 0,
         whole_quads(a.x, b.x, c, bias, add) ? product_squares<size, true> : product_squares<size, false>, a, b, c,
         bias, add, op.accumulate, static_cast<int>(depth));
}

}  // namespace

void run(const Product& op, Queue& queue) {
  if (op.a_scaling) return run_scaled(op, queue);
  if (queue.warpgroups() && takes_wgmma(op)) return run_wgmma(op, queue);
  if (op.a.dtype == Dtype::bf16 && op.b.dtype == Dtype::bf16) return multiply_halves(op, queue);
  if (multiply_thin(op, queue) || multiply_shallow(op, queue)) return;
  const std::int64_t large = std::int64_t{blocks_for(op.c.rows, kLargeTile)} * blocks_for(op.c.cols, kLargeTile);
  large < kManyBlocks ? launch_squares<kSmallTile>(op, queue) : launch_squares<kLargeTile>(op, queue);
}

}  // namespace troupe::cuda
