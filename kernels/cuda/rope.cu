// Rotary positions, in place: with (c, s) = (cosine, sine)[positions[t], i] each pair (a, b) of a head's `dim` columns
// becomes (a c - b s, a s + b c); inverse takes -s. Pairs are columns (2i, 2i + 1) or (i, i + dim / 2). Bits are the
// CPU's. A thread turns four pairs of one head: two quads, read and written once; the tables stay in the caches.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kThreads = 256, kPairs = 4;

struct Turn {
  View x, positions, cosine, sine;
  int groups;  // of four pairs, in a head
  int items;   // groups of all heads
  int chunks;  // blocks a row
  int head_stride, offset, pairs;
  bool interleaved;
  float sign;
};

__device__ void turn(float& a, float& b, float c, float s) {
  const float first = a * c - b * s, second = a * s + b * c;
  a = first, b = second;
}

// Two quads: of neighbours (a, b, a, b), or four a and four b.
__device__ void turn_whole(const Turn& op, std::int64_t t, std::int64_t position, std::int64_t first, int pair) {
  const std::int64_t left = first + (op.interleaved ? 2 * pair : pair),
                     right = op.interleaved ? left + 4 : left + op.pairs;
  const uint4 left_bits = fetch<true>(op.x, t, left), right_bits = fetch<true>(op.x, t, right);
  const float4 c = floats(true, fetch<true>(op.cosine, position, pair));
  float4 s = floats(true, fetch<true>(op.sine, position, pair));
  s = make_float4(op.sign * s.x, op.sign * s.y, op.sign * s.z, op.sign * s.w);
  float4 v = floats(op.x, left_bits), w = floats(op.x, right_bits);
  if (op.interleaved) {
    turn(v.x, v.y, c.x, s.x), turn(v.z, v.w, c.y, s.y);
    turn(w.x, w.y, c.z, s.z), turn(w.z, w.w, c.w, s.w);
  } else {
    turn(v.x, w.x, c.x, s.x), turn(v.y, w.y, c.y, s.y);
    turn(v.z, w.z, c.z, s.z), turn(v.w, w.w, c.w, s.w);
  }
  store<true>(op.x, t, left, v);
  store<true>(op.x, t, right, w);
}

__device__ void turn_one(const Turn& op, std::int64_t t, std::int64_t position, std::int64_t first, int pair) {
  const std::int64_t left = first + (op.interleaved ? 2 * pair : pair),
                     right = op.interleaved ? left + 1 : left + op.pairs;
  float a = op.x.get(t, left), b = op.x.get(t, right);
  turn(a, b, op.cosine.get(position, pair), op.sign * op.sine.get(position, pair));
  op.x.put(t, left, a);
  op.x.put(t, right, b);
}

template <bool whole>
__global__ void turn_rows(const __grid_constant__ Turn op) {
  const std::int64_t t = blockIdx.x / op.chunks;
  const int item = static_cast<int>(blockIdx.x % op.chunks * kThreads + threadIdx.x);
  if (item >= op.items) return;
  const std::int64_t position = *op.positions.at<const std::int32_t>(t, 0);
  insist(position >= 0 && position < op.cosine.rows);
  const int head = item / op.groups, pair = item % op.groups * kPairs;
  const std::int64_t first = op.offset + std::int64_t{head} * op.head_stride;
  if constexpr (whole)
    turn_whole(op, t, position, first, pair);
  else
    for (int i = pair; i < min(pair + kPairs, op.pairs); ++i) turn_one(op, t, position, first, i);
}

}  // namespace

void run(const Rope& op, Queue& queue) {
  const int pairs = op.dim / 2, groups = (pairs + kPairs - 1) / kPairs, items = groups * op.heads;
  const int chunks = static_cast<int>(blocks_for(items, kThreads));
  const Turn turn{op.x,   op.positions,   op.cosine, op.sine, groups,         items,
                  chunks, op.head_stride, op.offset, pairs,   op.interleaved, op.inverse ? -1.0F : 1.0F};
  const bool whole = turn.x.quads && op.x.cols % 4 == 0 && whole_quads(turn.cosine, turn.sine) &&
                     op.head_stride % 4 == 0 && op.offset % 4 == 0 && pairs % kPairs == 0;
  launch(queue, static_cast<unsigned>(op.x.rows * chunks), kThreads, 0, whole ? turn_rows<true> : turn_rows<false>,
         turn);
}

}  // namespace troupe::cuda
