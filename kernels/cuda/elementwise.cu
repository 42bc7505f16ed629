// Copy (converts), Add, Fill, and SumRows: out[0,d] (+)= sum_t x[t,d], rows in order in float32, as the CPU's.
// Add and Copy assign; SumRows owns its accumulation. Each operand is moved once.
#include <bit>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/move.h"
#include "kernels/cuda/quads.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {

constexpr int kQuads = 4;
constexpr std::size_t kLittle = std::size_t{1} << 20;  // bytes
// A block sums kSumColumns columns. Its threads fetch the next kSumRows rows of them while one warp adds the last ones.
constexpr int kSumColumns = 32, kSumRows = 128, kSumThreads = 256, kSumQuads = kSumColumns / 4,
              kSumFetches = kSumRows * kSumQuads / kSumThreads;

template <bool whole>
__global__ void add_quads(View a, View b, View out, Sheet<kQuads> sheet) {
  const std::int64_t t = sheet.row();
  if (t >= sheet.rows) return;
  uint4 left[kQuads], right[kQuads];
  for (int i = 0; i < kQuads; ++i) {
    left[i] = fetch<whole>(a, t, sheet.col(i));
    right[i] = fetch<whole>(b, t, sheet.col(i));
  }
  for (int i = 0; i < kQuads; ++i) store<whole>(out, t, sheet.col(i), sum(floats(a, left[i]), floats(b, right[i])));
}

template <bool whole>
__global__ void fill_quads(View out, uint4 pattern, Sheet<kQuads> sheet) {
  const std::int64_t t = sheet.row();
  if (t >= sheet.rows) return;
  for (int i = 0; i < kQuads; ++i) store_bits<whole>(out, t, sheet.col(i), pattern);
}

// Tensors without gaps, of whole quads of words.
struct Stretch {
  uint4* data;
  std::int64_t quads;
};
using Stretches = Batch<Stretch, 160>;
struct Sum {
  const float4 *a, *b;
  float4* out;
  std::int64_t quads;
};
using Sums = Batch<Sum, 104>;
constexpr int kStretchThreads = 256, kStretchQuads = kStretchThreads * kQuads;  // of a block

__global__ void __launch_bounds__(kStretchThreads)
    fill_stretches(const __grid_constant__ Stretches all, uint4 pattern) {
  const int item = all.item_of(blockIdx.x);
  const Stretch own = all.items[item];
  const std::int64_t first = std::int64_t{blockIdx.x - all.first_block[item]} * kStretchQuads + threadIdx.x;
  for (int i = 0; i < kQuads; ++i)
    if (first + i * kStretchThreads < own.quads) own.data[first + i * kStretchThreads] = pattern;
}

__global__ void __launch_bounds__(kStretchThreads) add_stretches(const __grid_constant__ Sums all) {
  const int item = all.item_of(blockIdx.x);
  const Sum own = all.items[item];
  const std::int64_t first = std::int64_t{blockIdx.x - all.first_block[item]} * kStretchQuads + threadIdx.x;
  float4 a[kQuads], b[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i)
    if (first + i * kStretchThreads < own.quads)
      a[i] = own.a[first + i * kStretchThreads], b[i] = own.b[first + i * kStretchThreads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i)
    if (first + i * kStretchThreads < own.quads) own.out[first + i * kStretchThreads] = sum(a[i], b[i]);
}

// Row by row: thread c of the first warp owns column c of the block's.
template <bool whole>
__global__ void sum_rows(View x, View out, bool accumulate) {
  __shared__ float4 tiles[2][kSumRows][kSumQuads];
  const std::int64_t first = std::int64_t{blockIdx.x} * kSumColumns, column = first + threadIdx.x;
  const int quad = static_cast<int>(threadIdx.x) % kSumQuads, row = static_cast<int>(threadIdx.x) / kSumQuads;
  const bool adds = threadIdx.x < kSumColumns && column < x.cols;
  uint4 bits[kSumFetches];
  const auto fetch_tile = [&](std::int64_t begin) {
    for (int i = 0; i < kSumFetches; ++i) {
      const std::int64_t t = begin + row + i * (kSumRows / kSumFetches);
      bits[i] = t < x.rows ? fetch<whole>(x, t, first + quad * 4) : make_uint4(0, 0, 0, 0);
    }
  };
  float sum = adds && accumulate ? *out.at<const float>(0, column) : 0.0F;
  fetch_tile(0);
  int side = 0;
  for (std::int64_t begin = 0; begin < x.rows; begin += kSumRows, side ^= 1) {
    for (int i = 0; i < kSumFetches; ++i) tiles[side][row + i * (kSumRows / kSumFetches)][quad] = floats(x, bits[i]);
    __syncthreads();
    fetch_tile(begin + kSumRows);
    if (!adds) continue;
    const auto* tile = reinterpret_cast<const float*>(tiles[side]) + threadIdx.x;
    const int count = static_cast<int>(min(x.rows - begin, std::int64_t{kSumRows}));
    for (int i = 0; i < count; ++i) sum = sum + tile[i * kSumColumns];
  }
  if (adds) *out.at<float>(0, column) = sum;
}

// Four words of what a tensor is filled with.
uint4 pattern_of(Dtype dtype, float value) {
  std::uint32_t low = 0, high = 0;
  if (dtype == Dtype::f64) {
    const auto bits = std::bit_cast<std::uint64_t>(static_cast<double>(value));
    low = static_cast<std::uint32_t>(bits), high = static_cast<std::uint32_t>(bits >> 32);
  } else if (dtype == Dtype::bf16) {
    low = high = round_to_bf16(value) * 0x10001U;
  } else {
    low = high = dtype == Dtype::f32 ? std::bit_cast<std::uint32_t>(value)
                                     : std::bit_cast<std::uint32_t>(static_cast<std::int32_t>(value));
  }
  return make_uint4(low, high, low, high);
}

// Null: not one that can go with others.
const Fill* stretch_of(const Op& op) {
  const auto* one = std::get_if<Fill>(&op);
  if (one == nullptr || !one->out || !one->out.contiguous() || !rows_aligned(one->out)) return nullptr;
  return static_cast<std::size_t>(one->out.elements()) * bytes_of(one->out.dtype) % 16 == 0 ? one : nullptr;
}

}  // namespace

// Of one type and without gaps it is a plain copy, which also knows best how to reach the host's memory; of little, a
// kernel begins sooner.
void run(const Copy& op, Queue& queue) {
  const std::size_t size = static_cast<std::size_t>(op.out.elements()) * bytes_of(op.out.dtype);
  if (op.source.dtype != op.out.dtype || !op.source.contiguous() || !op.out.contiguous() ||
      (size <= kLittle && op.out.dtype != Dtype::f64))
    return move_rows(op.source, {}, op.out, Move::straight, queue);
  if (size > 0)
    must(cudaMemcpyAsync(op.out.data, op.source.data, size, cudaMemcpyDefault, queue.stream()), "copying a tensor");
}

void run(const Add& op, Queue& queue) {
  Tensor a = op.a, b = op.b, out = op.out;
  flatten(a, b, out);
  const Sheet<kQuads> sheet(out.rows, out.cols);
  launch(queue, sheet.blocks(), sheet.threads(), 0,
         whole_quads(View(a), View(b), View(out)) ? add_quads<true> : add_quads<false>, a, b, out, sheet);
}

void run(const Fill& op, Queue& queue) {
  Tensor out = op.out;
  if (out.dtype == Dtype::f64) out.cols *= 2, out.stride *= 2;
  if (out.dtype != Dtype::bf16) out.dtype = Dtype::f32;
  flatten(out);
  const Sheet<kQuads> sheet(out.rows, out.cols);
  launch(queue, sheet.blocks(), sheet.threads(), 0, whole_quads(View(out)) ? fill_quads<true> : fill_quads<false>, out,
         pattern_of(op.out.dtype, op.value), sheet);
}

// Without gaps, of whole quads.
std::size_t run_adds(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  Sums all;
  static_assert(sizeof all <= kParametersMax);
  Touched<2, 1> touched;
  std::size_t i = first;
  for (; i < ops.size() && !all.full(); ++i) {
    const auto* op = std::get_if<Add>(ops[i]);
    if (op == nullptr || op->out.elements() % 4 != 0) break;
    const auto is_plain = [](const Tensor& x) { return x.dtype == Dtype::f32 && x.contiguous() && rows_aligned(x); };
    if (!is_plain(op->a) || !is_plain(op->b) || !is_plain(op->out)) break;
    if (!touched.take({op->a, op->b}, {op->out})) break;
    check(*ops[i]);
    const std::int64_t quads = op->out.elements() / 4;
    all.add({static_cast<const float4*>(op->a.data), static_cast<const float4*>(op->b.data),
             static_cast<float4*>(op->out.data), quads},
            blocks_for(quads, kStretchQuads));
  }
  launch(queue, all.blocks(), kStretchThreads, 0, add_stretches, all);
  return i - first;
}

// All of one pattern, so that it doesn't matter which of two that meet comes last.
std::size_t run_fills(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  const Fill* head = stretch_of(*ops[first]);
  if (head == nullptr) return 0;
  const uint4 pattern = pattern_of(head->out.dtype, head->value);
  const auto same = [&](const Fill& op) {
    const uint4 own = pattern_of(op.out.dtype, op.value);
    return own.x == pattern.x && own.y == pattern.y && own.z == pattern.z && own.w == pattern.w;
  };
  Stretches all;
  static_assert(sizeof all + sizeof pattern <= kParametersMax);
  std::size_t op = first;
  for (; op < ops.size() && !all.full(); ++op) {
    const Fill* fill = stretch_of(*ops[op]);
    if (fill == nullptr || !same(*fill)) break;
    check(*ops[op]);
    const auto quads = fill->out.elements() * static_cast<std::int64_t>(bytes_of(fill->out.dtype)) / 16;
    all.add({static_cast<uint4*>(fill->out.data), quads}, blocks_for(quads, kStretchQuads));
  }
  launch(queue, all.blocks(), kStretchThreads, 0, fill_stretches, all, pattern);
  return op - first;
}

void run(const SumRows& op, Queue& queue) {
  const View x = op.x;
  launch(queue, blocks_for(op.out.cols, kSumColumns), kSumThreads, 0, whole_quads(x) ? sum_rows<true> : sum_rows<false>,
         x, op.out, op.accumulate);
}

}  // namespace troupe::cuda
