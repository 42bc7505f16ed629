// Root-mean-square norm, forward and backward; x, y, dy, dx: (N, D), weight, dweight: (1, D), inverse_rms: (N, 1) f32.
//   y[t,d] = weight[d] (x[t,d] r[t]),  r[t] = 1 / sqrt(mean_d x^2 + eps)
//   dx = add + r (g - x r^2 mean_d(g x)),  g = weight dy;   dweight[d] = sum_t dy[t,d] (x[t,d] r[t]), assigned
// Formulas and order are the CPU's (kernels/cpu/norm.cc), but for dweight: rows are summed in order within blocks of
// kRowBlock, those in order within runs of kPartsRun, then the runs in order, so that enough threads have work.
// A block of threads works on one row after another and holds it in shared memory: each operand is moved once, at most
// kColumnsMax columns. dx may be dy or add: a row's operands are read before it is written.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/lanes.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr std::int64_t kColumnsMax = 16384;                         // three rows of float32 in a block's shared memory
constexpr int kThreads = 256;                                       // at most; a short row takes fewer
constexpr std::int64_t kBlocksEnough = 1024, kRowsTogetherMax = 8;  // rows that share one reading of weight
constexpr int kRowBlock = 16, kPartsRun = 32, kRuns = 32, kColumns = 32;

// Threads that a row takes: each has kReadAhead quads, if there are so many.
unsigned threads_for(std::int64_t cols) {
  return std::min(unsigned{kThreads}, std::max(blocks_for(cols, 4 * kReadAhead * 32) * 32, 32U));
}
std::size_t shared_for(std::int64_t cols, int rows) { return static_cast<std::size_t>(padded(cols)) * rows * 4; }

__device__ float4& quad_at(float* row, int col) { return *reinterpret_cast<float4*>(row + col); }

// The first warp's sum of a[c] b[c] in lanes.
__device__ float row_product(const float* a, const float* b, int cols) {
  return fold_lanes(add_products(0, a, b, cols, static_cast<int>(threadIdx.x)));
}

template <bool whole>
__global__ void norm_rows(View x, View weight, View y, View inverse_rms, float eps, int rows_together) {
  __shared__ float shared_r;
  auto *held = dynamic_shared<float>(), *factors = held + padded(x.cols);
  const int cols = static_cast<int>(x.cols);
  for_own_quads<whole>(weight, 0, [&](int col, float4 w) { quad_at(factors, col) = w; });
  const std::int64_t begin = std::int64_t{blockIdx.x} * rows_together, end = min(begin + rows_together, x.rows);
  for (std::int64_t t = begin; t < end; ++t) {
    for_own_quads<whole>(x, t, [&](int col, float4 v) { quad_at(held, col) = v; });
    __syncthreads();
    if (threadIdx.x < 32) {
      const float r = 1.0F / sqrtf(row_product(held, held, cols) / static_cast<float>(cols) + eps);
      if (threadIdx.x == 0) shared_r = *inverse_rms.at<float>(t, 0) = r;
    }
    __syncthreads();
    const float r = shared_r;
    for (int col = static_cast<int>(threadIdx.x) * 4; col < cols; col += static_cast<int>(blockDim.x) * 4) {
      const float4 v = quad_at(held, col), w = quad_at(factors, col);
      store<whole>(y, t, col, make_float4(w.x * (v.x * r), w.y * (v.y * r), w.z * (v.z * r), w.w * (v.w * r)));
    }
  }
}

__device__ float4 multiply(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }

struct Slopes {
  View x, weight, inverse_rms, dy, add, dx;
  float* parts;  // (blocks, D): dweight of each block's rows
};

// Row t of x and of g = weight dy into shared memory, and its share of dweight onto `share`.
template <bool whole>
__device__ void hold_row(const Slopes& op, std::int64_t t, float r, float* held, float* slopes, float* share) {
  const int cols = static_cast<int>(op.x.cols), step = static_cast<int>(blockDim.x) * 4;
  for (int first = static_cast<int>(threadIdx.x) * 4; first < cols; first += step * kReadAhead) {
    uint4 xs[kReadAhead], dys[kReadAhead], weights[kReadAhead];
    for (int i = 0; i < kReadAhead; ++i) {
      xs[i] = fetch<whole>(op.x, t, first + i * step);
      dys[i] = fetch<whole>(op.dy, t, first + i * step);
      weights[i] = fetch<whole>(op.weight, 0, first + i * step);
    }
    for (int i = 0; i < kReadAhead; ++i) {
      const int col = first + i * step;
      if (col >= cols) continue;
      const float4 v = floats(op.x, xs[i]), dy = floats(op.dy, dys[i]);
      quad_at(held, col) = v;
      quad_at(slopes, col) = multiply(floats(op.weight, weights[i]), dy);
      quad_at(share, col) = sum(quad_at(share, col), multiply(dy, multiply(v, make_float4(r, r, r, r))));
    }
  }
}

// dx of the row that is held.
template <bool whole>
__device__ void write_row(const Slopes& op, std::int64_t t, float r, float along, float* held, float* slopes) {
  const int cols = static_cast<int>(op.x.cols), step = static_cast<int>(blockDim.x) * 4;
  for (int first = static_cast<int>(threadIdx.x) * 4; first < cols; first += step * kReadAhead) {
    uint4 more[kReadAhead] = {};
    for (int i = 0; i < kReadAhead; ++i)
      if (op.add) more[i] = fetch<whole>(op.add, t, first + i * step);
    for (int i = 0; i < kReadAhead; ++i) {
      const int col = first + i * step;
      if (col >= cols) continue;
      const float4 v = quad_at(held, col), g = quad_at(slopes, col);
      const float4 slope = make_float4(r * (g.x - v.x * along), r * (g.y - v.y * along), r * (g.z - v.z * along),
                                       r * (g.w - v.w * along));
      store<whole>(op.dx, t, col, op.add ? sum(floats(op.add, more[i]), slope) : slope);
    }
  }
}

template <bool whole>
__global__ void norm_slopes(const __grid_constant__ Slopes op) {
  __shared__ float shared_along;
  const int cols = static_cast<int>(op.x.cols);
  auto *held = dynamic_shared<float>(), *slopes = held + padded(cols), *share = slopes + padded(cols);
  for (int col = static_cast<int>(threadIdx.x) * 4; col < cols; col += static_cast<int>(blockDim.x) * 4)
    quad_at(share, col) = make_float4(0, 0, 0, 0);
  const std::int64_t begin = std::int64_t{blockIdx.x} * kRowBlock, end = min(begin + kRowBlock, op.x.rows);
  for (std::int64_t t = begin; t < end; ++t) {
    const float r = *op.inverse_rms.at<const float>(t, 0);
    hold_row<whole>(op, t, r, held, slopes, share);
    __syncthreads();
    if (threadIdx.x < 32) {
      const float total = row_product(slopes, held, cols);
      if (threadIdx.x == 0) shared_along = r * r * (total / static_cast<float>(cols));
    }
    __syncthreads();
    write_row<whole>(op, t, r, shared_along, held, slopes);
  }
  float* part = op.parts + std::int64_t{blockIdx.x} * cols;
  for (int col = static_cast<int>(threadIdx.x) * 4; col < cols; col += static_cast<int>(blockDim.x) * 4)
    for (int i = col; i < min(col + 4, cols); ++i) part[i] = share[i];
}

// dweight[d] = the parts' sum: thread (d, run) adds kPartsRun of them in order, the first then adds the runs in order.
__global__ void add_parts(const float* parts, int count, View dweight) {
  __shared__ float runs[kRuns][kColumns];
  const std::int64_t d = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const bool inside = d < dweight.cols;
  float total = 0;
  for (int begin = 0; begin < count; begin += kRuns * kPartsRun) {
    const int first = begin + static_cast<int>(threadIdx.y) * kPartsRun;
    float own = 0;
#pragma unroll 8
    for (int b = first; b < min(first + kPartsRun, count); ++b)
      if (inside) own = own + parts[b * dweight.cols + d];
    __syncthreads();
    runs[threadIdx.y][threadIdx.x] = own;
    __syncthreads();
    for (int run = 0; threadIdx.y == 0 && run < kRuns && begin + run * kPartsRun < count; ++run)
      total = total + runs[run][threadIdx.x];
  }
  if (inside && threadIdx.y == 0) dweight.put(0, d, total);
}

void must_fit(std::int64_t cols) {
  if (cols > kColumnsMax) throw Error("cuda: a norm of {} columns; at most {} fit a block", cols, kColumnsMax);
}

}  // namespace

void run(const Norm& op, Queue& queue) {
  must_fit(op.x.cols);
  const std::int64_t together = std::clamp(op.x.rows / kBlocksEnough, std::int64_t{1}, kRowsTogetherMax);
  const View x = op.x, weight = op.weight, y = op.y;
  launch(queue, blocks_for(op.x.rows, together), threads_for(op.x.cols), shared_for(op.x.cols, 2),
         whole_quads(x, weight, y) ? norm_rows<true> : norm_rows<false>, x, weight, y, op.inverse_rms, op.eps,
         static_cast<int>(together));
}

void run(const NormBackward& op, Queue& queue) {
  must_fit(op.x.cols);
  const unsigned parts = blocks_for(op.x.rows, kRowBlock);
  const Slopes slopes{
      op.x, op.weight, op.inverse_rms, op.dy, op.add, op.dx, queue.take<float>(std::int64_t{parts} * op.x.cols)};
  const bool whole = whole_quads(slopes.x, slopes.weight, slopes.dy, slopes.add, slopes.dx);
  launch(queue, parts, threads_for(op.x.cols), shared_for(op.x.cols, 3), whole ? norm_slopes<true> : norm_slopes<false>,
         slopes);
  launch(queue, blocks_for(op.x.cols, kColumns), dim3(kColumns, kRuns), 0, add_parts, slopes.parts,
         static_cast<int>(parts), op.dweight);
}

}  // namespace troupe::cuda
