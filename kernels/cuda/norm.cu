// Root-mean-square norm; formulas and order are those of kernels/cpu/norm.cc, but for dweight: rows are summed in order
// within blocks of kRowBlock, then the blocks in order, so that enough threads have work.
// Four threads a row: each reads every fourth quad, which is four of the sixteen lanes of a sum.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

namespace {

constexpr int kThreads = 128, kRowThreads = 4, kRows = kThreads / kRowThreads, kRowBlock = 64, kColumns = 32;

__global__ void norm_rows(View x, View weight, View y, View inverse_rms, float eps) {
  const std::int64_t t = std::int64_t{blockIdx.x} * kRows + threadIdx.x / kRowThreads;
  const std::int64_t first = threadIdx.x % kRowThreads * 4;
  const bool inside = t < x.rows;
  float4 lanes = make_float4(0, 0, 0, 0);
  if (inside)
    for (std::int64_t c = first; c < x.cols; c += kFold) {
      const float4 v = x.quad(t, c);
      lanes = add_products(lanes, v, v);
    }
  const float r = 1.0F / sqrtf(fold_sum(lanes) / static_cast<float>(x.cols) + eps);
  if (!inside) return;
  if (first == 0) *inverse_rms.at<float>(t, 0) = r;
  for (std::int64_t c = first; c < x.cols; c += kFold) {
    const float4 v = x.quad(t, c), w = weight.quad(0, c);
    y.put_quad(t, c, make_float4(w.x * (v.x * r), w.y * (v.y * r), w.z * (v.z * r), w.w * (v.w * r)));
  }
}

__device__ float4 multiply(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }

__global__ void norm_slopes(View x, View weight, View inverse_rms, View dy, View add, View dx) {
  const std::int64_t t = std::int64_t{blockIdx.x} * kRows + threadIdx.x / kRowThreads;
  const std::int64_t first = threadIdx.x % kRowThreads * 4;
  const bool inside = t < x.rows;
  float4 lanes = make_float4(0, 0, 0, 0);
  if (inside)
    for (std::int64_t c = first; c < x.cols; c += kFold)
      lanes = add_products(lanes, multiply(weight.quad(0, c), dy.quad(t, c)), x.quad(t, c));
  const float total = fold_sum(lanes);
  if (!inside) return;
  const float r = *inverse_rms.at<const float>(t, 0), along = r * r * (total / static_cast<float>(x.cols));
  for (std::int64_t c = first; c < x.cols; c += kFold) {
    const float4 g = multiply(weight.quad(0, c), dy.quad(t, c)), v = x.quad(t, c);
    float4 slope =
        make_float4(r * (g.x - v.x * along), r * (g.y - v.y * along), r * (g.z - v.z * along), r * (g.w - v.w * along));
    if (add) {
      const float4 more = add.quad(t, c);
      slope = make_float4(more.x + slope.x, more.y + slope.y, more.z + slope.z, more.w + slope.w);
    }
    dx.put_quad(t, c, slope);
  }
}

// parts[b, d] = sum of the block's rows.
__global__ void norm_weight_parts(View x, View inverse_rms, View dy, float* parts) {
  const std::int64_t d = std::int64_t{blockIdx.x} * kColumns + threadIdx.x,
                     begin = std::int64_t{blockIdx.y} * kRowBlock;
  if (d >= x.cols) return;
  const std::int64_t end = min(begin + kRowBlock, x.rows);
  float sum = 0;
  for (std::int64_t t = begin; t < end; ++t)
    sum = sum + dy.get(t, d) * (x.get(t, d) * *inverse_rms.at<const float>(t, 0));
  parts[blockIdx.y * x.cols + d] = sum;
}

__global__ void add_parts(const float* parts, int count, View dweight) {
  const std::int64_t d = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  if (d >= dweight.cols) return;
  float sum = 0;
  for (int b = 0; b < count; ++b) sum = sum + parts[b * dweight.cols + d];
  dweight.put(0, d, sum);
}

}  // namespace

void run(const Norm& op, Queue& queue) {
  launch(queue, blocks_for(op.x.rows, kRows), kThreads, 0, norm_rows, op.x, op.weight, op.y, op.inverse_rms, op.eps);
}

void run(const NormBackward& op, Queue& queue) {
  const unsigned parts = blocks_for(op.x.rows, kRowBlock), columns = blocks_for(op.x.cols, kColumns);
  float* sums = queue.take<float>(std::int64_t{parts} * op.x.cols);
  // The weight's share first: dx may be where dy is.
  launch(queue, dim3(columns, parts), kColumns, 0, norm_weight_parts, op.x, op.inverse_rms, op.dy, sums);
  launch(queue, columns, kColumns, 0, add_parts, sums, static_cast<int>(parts), op.dweight);
  launch(queue, blocks_for(op.x.rows, kRows), kThreads, 0, norm_slopes, op.x, op.weight, op.inverse_rms, op.dy, op.add,
         op.dx);
}

}  // namespace troupe::cuda
