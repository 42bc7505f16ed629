// Root-mean-square norm, forward and backward; x, y, dy, dx: (N, D), weight, dweight: (1, D), inverse_rms: (N, 1) f32.
//   y[t,d] = weight[d] (x[t,d] r[t]),  r[t] = 1 / sqrt(mean_d x^2 + eps)
//   dx = add + r (g - x r^2 mean_d(g x)),  g = weight dy;   dweight[d] = sum_t dy[t,d] (x[t,d] r[t]), assigned
// Formulas and order are the CPU's (kernels/cpu/norm.cc), but for dweight: rows are summed in order within blocks of
// kRowBlock, those in order within runs of kPartsRun, then the runs in order, so that enough threads have work.
// A block of threads works on one row after another, holds it in shared memory and has the next one on its way: each
// operand is moved once, at most kColumnsMax columns. dx may be dy or add: a row's operands are read before it is written,
// by the threads that write it.
#include "kernels/cuda/batch.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/lanes.h"
#include "kernels/cuda/threads.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {

constexpr std::int64_t kColumnsMax = 16384;                         // kThreadsMax threads with kReadAhead quads each
constexpr int kThreads = 256, kThreadsMax = 1024;                   // a short row takes fewer
constexpr std::int64_t kBlocksEnough = 1024, kRowsTogetherMax = 8;  // rows that share one reading of weight
constexpr int kRowBlock = 16, kPartsRun = 32, kRuns = 32, kColumns = 8;

// Threads that a row takes: each has kReadAhead quads, if there are so many.
unsigned threads_for(std::int64_t cols) { return std::max(blocks_for(cols, 4 * kReadAhead * 32) * 32, 32U); }
std::size_t shared_for(std::int64_t cols, int rows) { return static_cast<std::size_t>(padded(cols)) * rows * 4; }

__device__ float4& quad_at(float* row, int col) { return *reinterpret_cast<float4*>(row + col); }
__device__ int own_col(int i) { return static_cast<int>(threadIdx.x + i * blockDim.x) * 4; }

// The thread's own quads of a row, on their way from memory.
template <bool whole>
struct Quads {
  uint4 bits[kReadAhead];

  __device__ void read(const View& x, std::int64_t row) {
#pragma unroll
    for (int i = 0; i < kReadAhead; ++i) bits[i] = fetch<whole>(x, row, own_col(i));
  }
};

// The first warp's sum of a[c] b[c] in lanes.
__device__ float row_product(const float* a, const float* b, int cols) {
  return fold_lanes(add_products(0, a, b, cols, static_cast<int>(threadIdx.x)));
}

__device__ float4 multiply(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
__device__ float4 multiply(float4 a, float b) { return multiply(a, make_float4(b, b, b, b)); }

template <bool whole, int threads>
__global__ void __launch_bounds__(threads)
    norm_rows(const __grid_constant__ View x, const __grid_constant__ View weight, const __grid_constant__ View y,
              View inverse_rms, float eps, int rows_together) {
  __shared__ float shared_r;
  auto* held = dynamic_shared<float>();
  const int cols = static_cast<int>(x.cols);
  const std::int64_t begin = std::int64_t{blockIdx.x} * rows_together, end = min(begin + rows_together, x.rows);
  Quads<whole> next, factors;
  next.read(x, begin);
  factors.read(weight, 0);
  for (std::int64_t t = begin; t < end; ++t) {
    float4 own[kReadAhead];
#pragma unroll
    for (int i = 0; i < kReadAhead; ++i) {
      own[i] = floats(x, next.bits[i]);
      if (own_col(i) < cols) quad_at(held, own_col(i)) = own[i];
    }
    if (t + 1 < end) next.read(x, t + 1);
    __syncthreads();
    if (threadIdx.x < 32) {
      const float r = 1.0F / sqrtf(row_product(held, held, cols) / static_cast<float>(cols) + eps);
      if (threadIdx.x == 0) shared_r = *inverse_rms.at<float>(t, 0) = r;
    }
    __syncthreads();
    const float r = shared_r;
#pragma unroll
    for (int i = 0; i < kReadAhead; ++i)
      store<whole>(y, t, own_col(i), multiply(floats(weight, factors.bits[i]), multiply(own[i], r)));
  }
}

// Rows of few columns: a warp has `rows` of them at once, in registers, and waits for nobody else; a thread has `quads`
// quads of each. For the sums they stand in shared memory, where half a warp takes a row.
constexpr int kWarps = 4;
constexpr int pitch_of(int quads) { return quads * 128 + kFold; }  // neighbours begin in other banks

template <bool whole, int quads, int rows>
struct WarpRows {
  uint4 bits[rows][quads];

  static __device__ int col(int i) { return static_cast<int>(threadIdx.x % 32 + i * 32) * 4; }
  __device__ void read(const View& x, std::int64_t first) {
#pragma unroll
    for (int t = 0; t < rows; ++t)
#pragma unroll
      for (int i = 0; i < quads; ++i)
        bits[t][i] = first + t < x.rows ? fetch<whole>(x, first + t, col(i)) : make_uint4(0, 0, 0, 0);
  }
};

template <int rows>
struct RowSums {
  float of[rows];

  // Every thread has the sums of a[c] b[c] of all rows.
  __device__ RowSums(const float* a, const float* b, int cols, int pitch) {
    const int half = static_cast<int>(threadIdx.x) / 16 % 2, lane = static_cast<int>(threadIdx.x) % kFold;
#pragma unroll
    for (int t = 0; t < rows; t += 2) {
      float total = 0;
      if (t + half < rows) {
        const float *left = a + (t + half) * pitch, *right = b + (t + half) * pitch;
#pragma unroll 16
        for (int c = lane; c < cols; c += kFold) total = fmaf(left[c], right[c], total);
      }
      total = fold_lanes(total);
      of[t] = __shfl_sync(kWarp, total, 0);
      if (t + 1 < rows) of[t + 1] = __shfl_sync(kWarp, total, 16);
    }
  }
};

template <bool whole, int quads, int rows>
__global__ void __launch_bounds__(32 * kWarps)
    norm_warps(const __grid_constant__ View x, const __grid_constant__ View weight, const __grid_constant__ View y,
               const __grid_constant__ View inverse_rms, float eps) {
  constexpr int kPitch = pitch_of(quads);
  __shared__ float4 memory[kWarps * rows * kPitch / 4];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int cols = static_cast<int>(x.cols);
  const std::int64_t first = (std::int64_t{blockIdx.x} * kWarps + warp) * rows;
  float* held = reinterpret_cast<float*>(memory) + warp * rows * kPitch;
  WarpRows<whole, quads, rows> own;
  own.read(x, first);
  float4 values[rows][quads];
#pragma unroll
  for (int t = 0; t < rows; ++t)
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      values[t][i] = floats(x, own.bits[t][i]);
      quad_at(held + t * kPitch, own.col(i)) = values[t][i];
    }
  __syncwarp();
  const RowSums<rows> squares(held, held, cols, kPitch);
#pragma unroll
  for (int t = 0; t < rows; ++t) {
    if (first + t >= x.rows) continue;
    const float r = 1.0F / sqrtf(squares.of[t] / static_cast<float>(cols) + eps);
    if (lane == 0) *inverse_rms.at<float>(first + t, 0) = r;
#pragma unroll
    for (int i = 0; i < quads; ++i)
      store<whole>(y, first + t, own.col(i),
                   multiply(floats(weight, fetch<whole>(weight, 0, own.col(i))), multiply(values[t][i], r)));
  }
}

struct Slopes {
  View x, weight, inverse_rms, dy, add, dx, copy;  // copy: of dx, in bfloat16; or none
  float* parts;                                    // (blocks, D): dweight of each block's rows
};

// x and g = weight dy of a row stand in shared memory while the next row is on its way.
template <bool whole, int threads>
__global__ void __launch_bounds__(threads, threads == kThreads ? 2 : 1) norm_slopes(const __grid_constant__ Slopes op) {
  __shared__ float shared_along;
  const int cols = static_cast<int>(op.x.cols);
  auto *held = dynamic_shared<float>(), *slopes = held + padded(cols), *factors = slopes + padded(cols);
  const std::int64_t begin = std::int64_t{blockIdx.x} * kRowBlock, end = min(begin + kRowBlock, op.x.rows);
  float4 share[kReadAhead] = {};
  Quads<whole> next_x, next_dy, more;
  float next_r = *op.inverse_rms.at<const float>(begin, 0);
  next_x.read(op.x, begin);
  next_dy.read(op.dy, begin);
  more.read(op.weight, 0);
  for (int i = 0; i < kReadAhead; ++i)
    if (own_col(i) < cols) quad_at(factors, own_col(i)) = floats(op.weight, more.bits[i]);
  for (std::int64_t t = begin; t < end; ++t) {
    const float r = next_r;
#pragma unroll
    for (int i = 0; i < kReadAhead; ++i) {
      if (own_col(i) >= cols) continue;
      const float4 v = floats(op.x, next_x.bits[i]), dy = floats(op.dy, next_dy.bits[i]);
      quad_at(held, own_col(i)) = v;
      quad_at(slopes, own_col(i)) = multiply(quad_at(factors, own_col(i)), dy);
      share[i] = sum(share[i], multiply(dy, multiply(v, r)));
    }
    if (op.add) more.read(op.add, t);
    if (t + 1 < end) {
      next_r = *op.inverse_rms.at<const float>(t + 1, 0);
      next_x.read(op.x, t + 1);
      next_dy.read(op.dy, t + 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const float total = row_product(slopes, held, cols);
      if (threadIdx.x == 0) shared_along = r * r * (total / static_cast<float>(cols));
    }
    __syncthreads();
    const float along = shared_along;
#pragma unroll
    for (int i = 0; i < kReadAhead; ++i) {
      if (own_col(i) >= cols) continue;
      const float4 v = quad_at(held, own_col(i)), g = quad_at(slopes, own_col(i));
      const float4 slope = make_float4(r * (g.x - v.x * along), r * (g.y - v.y * along), r * (g.z - v.z * along),
                                       r * (g.w - v.w * along));
      const float4 value = op.add ? sum(floats(op.add, more.bits[i]), slope) : slope;
      store<whole>(op.dx, t, own_col(i), value);
      if (op.copy) store<whole>(op.copy, t, own_col(i), value);
    }
  }
  float* part = op.parts + std::int64_t{blockIdx.x} * cols;
#pragma unroll
  for (int i = 0; i < kReadAhead; ++i) {
    const float values[4] = {share[i].x, share[i].y, share[i].z, share[i].w};
    for (int j = 0; j < min(4, cols - own_col(i)); ++j) part[own_col(i) + j] = values[j];
  }
}

// The rows of a part by `warps` warps, `rows` each at once. What a row adds to dweight stands in its place in shared
// memory once its sum is done; the block's threads then have columns, and add the rows in order.
template <bool whole, int quads, int rows, int warps>
__global__ void __launch_bounds__(32 * warps, (quads > 2 ? 16 : 32) / warps)
    slopes_warps(const __grid_constant__ Slopes op) {
  constexpr int kPitch = pitch_of(quads), kTogether = rows * warps,
                kOwn = (quads * 128 + 32 * warps - 1) / (32 * warps);
  static_assert(kRowBlock % kTogether == 0);
  using Rows = WarpRows<whole, quads, rows>;
  auto *all_held = dynamic_shared<float>(), *all_slopes = all_held + kTogether * kPitch;
  const int warp = static_cast<int>(threadIdx.x) / 32, cols = static_cast<int>(op.x.cols);
  float *held = all_held + warp * rows * kPitch, *slopes = all_slopes + warp * rows * kPitch;
  float share[kOwn] = {};
#pragma unroll 1
  for (int pass = 0; pass < kRowBlock / kTogether; ++pass) {
    const std::int64_t begin = std::int64_t{blockIdx.x} * kRowBlock + pass * kTogether, first = begin + warp * rows;
    Rows x, dy, more;
    x.read(op.x, first);
    dy.read(op.dy, first);
    if (op.add) more.read(op.add, first);
    float r[rows];
#pragma unroll
    for (int t = 0; t < rows; ++t) r[t] = first + t < op.x.rows ? *op.inverse_rms.at<const float>(first + t, 0) : 0.0F;
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      const float4 w = floats(op.weight, fetch<whole>(op.weight, 0, Rows::col(i)));
#pragma unroll
      for (int t = 0; t < rows; ++t) {
        quad_at(held + t * kPitch, Rows::col(i)) = floats(op.x, x.bits[t][i]);
        quad_at(slopes + t * kPitch, Rows::col(i)) = multiply(w, floats(op.dy, dy.bits[t][i]));
      }
    }
    __syncwarp();
    const RowSums<rows> sums(slopes, held, cols, kPitch);
    __syncwarp();
#pragma unroll
    for (int t = 0; t < rows; ++t) {
      const float along = r[t] * r[t] * (sums.of[t] / static_cast<float>(cols));
#pragma unroll
      for (int i = 0; i < quads; ++i) {
        const float4 v = floats(op.x, x.bits[t][i]), g = quad_at(slopes + t * kPitch, Rows::col(i));
        const float4 slope = make_float4(r[t] * (g.x - v.x * along), r[t] * (g.y - v.y * along),
                                         r[t] * (g.z - v.z * along), r[t] * (g.w - v.w * along));
        const float4 value = op.add ? sum(floats(op.add, more.bits[t][i]), slope) : slope;
        quad_at(held + t * kPitch, Rows::col(i)) = multiply(floats(op.dy, dy.bits[t][i]), multiply(v, r[t]));
        if (first + t >= op.x.rows) continue;
        store<whole>(op.dx, first + t, Rows::col(i), value);
        if (op.copy) store<whole>(op.copy, first + t, Rows::col(i), value);
      }
    }
    __syncthreads();
    const int count = static_cast<int>(min(std::int64_t{kTogether}, op.x.rows - begin));
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int c = static_cast<int>(threadIdx.x) + i * 32 * warps;
#pragma unroll
      for (int t = 0; t < kTogether; ++t)
        if (t < count && c < cols) share[i] = share[i] + all_held[t * kPitch + c];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int c = static_cast<int>(threadIdx.x) + i * 32 * warps;
    if (c < cols) op.parts[std::int64_t{blockIdx.x} * cols + c] = share[i];
  }
}

// dweight[d] = the parts' sum: thread (d, run) adds kPartsRun of them in order, the first then adds the runs in order.
__global__ void __launch_bounds__(kColumns* kRuns) add_parts(const float* parts, int count, View dweight) {
  __shared__ float runs[kRuns][kColumns];
  const std::int64_t d = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const bool inside = d < dweight.cols;
  float total = 0;
  for (int begin = 0; begin < count; begin += kRuns * kPartsRun) {
    const int first = begin + static_cast<int>(threadIdx.y) * kPartsRun;
    float values[kPartsRun], own = 0;
#pragma unroll
    for (int i = 0; i < kPartsRun; ++i)
      if (inside && first + i < count) values[i] = parts[(first + i) * dweight.cols + d];
#pragma unroll
    for (int i = 0; i < kPartsRun; ++i)
      if (inside && first + i < count) own = own + values[i];
    __syncthreads();
    runs[threadIdx.y][threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.y != 0) continue;
#pragma unroll
    for (int run = 0; run < kRuns; ++run)
      if (begin + run * kPartsRun < count) total = total + runs[run][threadIdx.x];
  }
  if (inside && threadIdx.y == 0) dweight.put(0, d, total);
}

void must_fit(std::int64_t cols) {
  if (cols > kColumnsMax) throw Error("cuda: a norm of {} columns; at most {} fit a block", cols, kColumnsMax);
}

template <int quads, int rows>
void launch_warps(const Norm& op, Queue& queue) {
  const View x = op.x, weight = op.weight, y = op.y;
  launch(queue, blocks_for(op.x.rows, kWarps * rows), 32 * kWarps, 0,
         whole_quads(x, weight, y) ? norm_warps<true, quads, rows> : norm_warps<false, quads, rows>, x, weight, y,
         op.inverse_rms, op.eps);
}

template <int quads, int rows, int warps>
void launch_slopes(const Slopes& slopes, bool whole, unsigned parts, Queue& queue) {
  launch(queue, parts, 32 * warps, std::size_t{2} * rows * warps * pitch_of(quads) * sizeof(float),
         whole ? slopes_warps<true, quads, rows, warps> : slopes_warps<false, quads, rows, warps>, slopes);
}

}  // namespace

void run(const Norm& op, Queue& queue) {
  if (op.x.cols <= 256) return launch_warps<2, 4>(op, queue);
  if (op.x.cols <= 512) return launch_warps<4, 2>(op, queue);
  if (op.x.cols <= 1024) return launch_warps<8, 1>(op, queue);
  must_fit(op.x.cols);
  const std::int64_t together = std::clamp(op.x.rows / kBlocksEnough, std::int64_t{1}, kRowsTogetherMax);
  const View x = op.x, weight = op.weight, y = op.y;
  const bool whole = whole_quads(x, weight, y);
  const unsigned threads = threads_for(op.x.cols);
  const auto kernel = threads <= kThreads ? whole ? norm_rows<true, kThreads> : norm_rows<false, kThreads>
                      : whole ? norm_rows<true, kThreadsMax>
                                          : norm_rows<false, kThreadsMax>;
  launch(queue, blocks_for(op.x.rows, together), threads, shared_for(op.x.cols, 1), kernel, x, weight, y,
         op.inverse_rms, op.eps, static_cast<int>(together));
}

namespace {

void launch_rows(const Slopes& slopes, bool whole, unsigned parts, Queue& queue) {
  const unsigned threads = threads_for(slopes.x.cols);
  const auto kernel = threads <= kThreads ? whole ? norm_slopes<true, kThreads> : norm_slopes<false, kThreads>
                      : whole ? norm_slopes<true, kThreadsMax>
                                          : norm_slopes<false, kThreadsMax>;
  launch(queue, parts, threads, shared_for(slopes.x.cols, 3), kernel, slopes);
}

void launch_backward(const NormBackward& op, const Tensor& copy, Queue& queue) {
  must_fit(op.x.cols);
  const unsigned parts = blocks_for(op.x.rows, kRowBlock);
  const Slopes slopes{op.x,   op.weight, op.inverse_rms, op.dy,
                      op.add, op.dx,     copy,           queue.take<float>(std::int64_t{parts} * op.x.cols)};
  const bool whole = whole_quads(slopes.x, slopes.weight, slopes.dy, slopes.add, slopes.dx, slopes.copy);
  op.x.cols <= 256 ? launch_slopes<2, 2, 8>(slopes, whole, parts, queue) : launch_rows(slopes, whole, parts, queue);
  launch(queue, blocks_for(op.x.cols, kColumns), dim3(kColumns, kRuns), 0, add_parts, slopes.parts,
         static_cast<int>(parts), op.dweight);
}

}  // namespace

void run(const NormBackward& op, Queue& queue) { launch_backward(op, {}, queue); }

// A float32 slope whose copy in bfloat16 follows: both are written at once.
std::size_t run_norm_and_copy(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  const auto* op = std::get_if<NormBackward>(ops[first]);
  const auto* copy = op != nullptr && first + 1 < ops.size() ? std::get_if<Copy>(ops[first + 1]) : nullptr;
  if (copy == nullptr || copy->source != op->dx || op->dx.dtype != Dtype::f32 || copy->out.dtype != Dtype::bf16)
    return 0;
  Touched<7, 1> touched;
  touched.take({op->x, op->weight, op->inverse_rms, op->dy, op->add, op->dx, op->dweight}, {{}});
  if (!touched.take({{}, {}, {}, {}, {}, {}, {}}, {copy->out})) return 0;
  check(*ops[first]);
  check(*ops[first + 1]);
  launch_backward(*op, copy->out, queue);
  return 2;
}

}  // namespace troupe::cuda
