// Rotary positions, in place: with (c, s) = (cosine, sine)[positions[t], i] each pair (a, b) of a head's `dim` columns
// becomes (a c - b s, a s + b c); inverse takes -s. Pairs are columns (2i, 2i + 1) or (i, i + dim / 2). Bits are the
// CPU's. A thread turns kEach times four pairs of one head: two quads each, read and written once; all of its reads are
// under way before it waits for the first. The tables stay in the caches. Neighbouring ops go in one launch where they turn
// different columns.
#include "kernels/cuda/batch.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/threads.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {

constexpr int kThreads = 256, kPairs = 4, kEach = 2;

struct Turn {
  View x, positions, cosine, sine;
  unsigned groups;  // of four pairs, in a head
  unsigned items;   // groups of all heads
  unsigned count;   // items of all rows
  int head_stride, offset, pairs;
  bool interleaved;
  bool joined;  // an item's two quads are one access of bfloat16
  float sign;
};
using Turns = Batch<Turn, 8>;

__device__ void turn(float& a, float& b, float c, float s) {
  const float first = a * c - b * s, second = a * s + b * c;
  a = first, b = second;
}

// Where an item stands, and what it is turned by.
struct Item {
  int row, position, left, right;  // left, right: columns of its two quads
  int pair;
};

__device__ Item item_at(const Turn& op, unsigned number) {
  const unsigned row = number / op.items, within = number % op.items;
  Item item;
  item.row = static_cast<int>(row);
  item.position = *op.positions.at<const std::int32_t>(row, 0);
  item.pair = static_cast<int>(within % op.groups) * kPairs;
  const int first = op.offset + static_cast<int>(within / op.groups) * op.head_stride;
  item.left = first + (op.interleaved ? 2 * item.pair : item.pair);
  item.right = op.interleaved ? item.left + 4 : item.left + op.pairs;
  return item;
}

// Two quads: of neighbours (a, b, a, b), or four a and four b.
__device__ void turn_quads(const Turn& op, float4& v, float4& w, float4 c, float4 s) {
  s = make_float4(op.sign * s.x, op.sign * s.y, op.sign * s.z, op.sign * s.w);
  if (op.interleaved) {
    turn(v.x, v.y, c.x, s.x), turn(v.z, v.w, c.y, s.y);
    turn(w.x, w.y, c.z, s.z), turn(w.z, w.w, c.w, s.w);
  } else {
    turn(v.x, w.x, c.x, s.x), turn(v.y, w.y, c.y, s.y);
    turn(v.z, w.z, c.z, s.z), turn(v.w, w.w, c.w, s.w);
  }
}

// Quads of whole tensors.
__global__ void __launch_bounds__(kThreads) turn_whole(const __grid_constant__ Turns all) {
  const int number = all.item_of(blockIdx.x);
  const Turn& op = all.items[number];
  const unsigned first = (blockIdx.x - all.first_block[number]) * (kThreads * kEach) + threadIdx.x;
  Item items[kEach];
  uint4 left[kEach], right[kEach], cosine[kEach], sine[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i)
    if (first + i * kThreads < op.count) items[i] = item_at(op, first + i * kThreads);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (first + i * kThreads >= op.count) continue;
    const Item& item = items[i];
    insist(item.position >= 0 && item.position < op.cosine.rows);
    if (op.joined) {
      left[i] = *reinterpret_cast<const uint4*>(op.x.at<const std::uint16_t>(item.row, item.left));
      right[i] = make_uint4(left[i].z, left[i].w, 0, 0);
    } else {
      left[i] = fetch<true>(op.x, item.row, item.left);
      right[i] = fetch<true>(op.x, item.row, item.right);
    }
    cosine[i] = fetch<true>(op.cosine, item.position, item.pair);
    sine[i] = fetch<true>(op.sine, item.position, item.pair);
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (first + i * kThreads >= op.count) continue;
    float4 v = floats(op.x, left[i]), w = floats(op.x, right[i]);
    turn_quads(op, v, w, floats(true, cosine[i]), floats(true, sine[i]));
    if (op.joined) {
      const uint4 low = bits_of(false, v), high = bits_of(false, w);
      *reinterpret_cast<uint4*>(op.x.at<std::uint16_t>(items[i].row, items[i].left)) =
          make_uint4(low.x, low.y, high.x, high.y);
      continue;
    }
    store<true>(op.x, items[i].row, items[i].left, v);
    store<true>(op.x, items[i].row, items[i].right, w);
  }
}

// Pair by pair: a and b are neighbours, or as far apart as there are pairs.
__global__ void __launch_bounds__(kThreads) turn_some(const __grid_constant__ Turn op) {
  const unsigned number = blockIdx.x * kThreads + threadIdx.x;
  if (number >= op.count) return;
  const Item item = item_at(op, number);
  insist(item.position >= 0 && item.position < op.cosine.rows);
  for (int i = 0; i < min(kPairs, op.pairs - item.pair); ++i) {
    const int left = item.left + (op.interleaved ? 2 * i : i), right = left + (op.interleaved ? 1 : op.pairs);
    float a = op.x.get(item.row, left), b = op.x.get(item.row, right);
    turn(a, b, op.cosine.get(item.position, item.pair + i), op.sign * op.sine.get(item.position, item.pair + i));
    op.x.put(item.row, left, a);
    op.x.put(item.row, right, b);
  }
}

Turn turn_of(const Rope& op) {
  const int pairs = op.dim / 2;
  const unsigned groups = blocks_for(pairs, kPairs), items = groups * static_cast<unsigned>(op.heads);
  const std::int64_t count = op.x.rows * items;
  CHECK(count < std::int64_t{1} << 31, "a rotation of {} groups of pairs", count);
  const bool joined = op.interleaved && op.x.dtype == Dtype::bf16 && rows_aligned(op.x) && op.head_stride % 8 == 0 &&
                      op.offset % 8 == 0;
  return {op.x,
          op.positions,
          op.cosine,
          op.sine,
          groups,
          items,
          static_cast<unsigned>(count),
          op.head_stride,
          op.offset,
          pairs,
          op.interleaved,
          joined,
          op.inverse ? -1.0F : 1.0F};
}

bool is_whole(const Rope& op, const Turn& turn) {
  return turn.x.quads && op.x.cols % 4 == 0 && whole_quads(turn.cosine, turn.sine) && op.head_stride % 4 == 0 &&
         op.offset % 4 == 0 && turn.pairs % kPairs == 0;
}

// Different columns of one matrix.
bool beside(const Tensor& a, const Tensor& b) {
  const auto begin = reinterpret_cast<std::uintptr_t>(a.data), other = reinterpret_cast<std::uintptr_t>(b.data);
  if (begin > other) return beside(b, a);
  const auto size = bytes_of(a.dtype), stride = static_cast<std::size_t>(a.stride) * size;
  return a.dtype == b.dtype && a.stride == b.stride && a.rows == b.rows &&
         other - begin >= static_cast<std::size_t>(a.cols) * size &&
         other - begin + static_cast<std::size_t>(b.cols) * size <= stride;
}

}  // namespace

void run(const Rope& op, Queue& queue) {
  const Turn turn = turn_of(op);
  if (!is_whole(op, turn)) return launch(queue, blocks_for(turn.count, kThreads), kThreads, 0, turn_some, turn);
  Turns one;
  one.add(turn, blocks_for(turn.count, kThreads * kEach));
  launch(queue, one.blocks(), kThreads, 0, turn_whole, one);
}

// By the same positions and tables.
std::size_t run_rotations(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  Turns all;
  static_assert(sizeof all <= kParametersMax);
  const Rope* ropes[8];
  for (std::size_t i = first; i < ops.size() && !all.full(); ++i) {
    const auto* op = std::get_if<Rope>(ops[i]);
    if (op == nullptr) break;
    const Turn turn = turn_of(*op);
    const auto goes_with = [&](const Rope* other) {
      return op->positions == other->positions && op->cosine == other->cosine && op->sine == other->sine &&
             beside(op->x, other->x);
    };
    if (!is_whole(*op, turn) || !std::all_of(ropes, ropes + all.count, goes_with)) break;
    check(*ops[i]);
    ropes[all.count] = op;
    all.add(turn, blocks_for(turn.count, kThreads * kEach));
  }
  launch(queue, all.blocks(), kThreads, 0, turn_whole, all);
  return static_cast<std::size_t>(all.count);
}

}  // namespace troupe::cuda
