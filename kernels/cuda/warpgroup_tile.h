// Sums of products of bfloat16 matrices on warpgroups: c (m, n) = start + sum over runs of a b, in tiles of 128 rows and
// kN columns. A block is three warpgroups: one thread of the last has boxes of both operands copied into a ring of stages
// in shared memory, 64 along k each; the two others hold 64 rows of the tile each and multiply. Blocks stay and take tile
// after tile, so that the next tile's stages fill while a tile is written.
// The law: an element is one chain over k in blocks of 16, increasing, that starts from c where the sum accumulates; what
// lies beyond the matrices are zeros and adds nothing. So it depends on no other row, and a sum may be cut along k at
// multiples of 16.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "kernels/cuda/bulk.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"
#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

constexpr int kGroupRows = 64, kTileRows = 128, kTileDepth = 64;
constexpr int kNarrowTile = 128, kWideTile = 256;
constexpr int kTileThreads = 384;
constexpr unsigned kMultiprocessors = 132;  // of an H100

// What a launch computes: sums, each of so many runs, a kernel's parameter.
template <int capacity>
struct TileSums {
  BoxMap a[capacity], b[capacity];  // of a run; a[0] of all where `one_a`
  int steps[capacity];              // of a run: its depth in kTileDepth
  View c[capacity];
  int first_row[capacity];                                // of a sum in its runs' a
  int first_run[capacity + 1], first_tile[capacity + 1];  // of each sum, and where the last ends
  View bias, add;
  int count;
  bool one_a, accumulate;
};

template <bool a_across, bool b_across, int kN>
struct TileRing {
  static constexpr int kStages = kN <= 128 ? 6 : kN <= 192 ? 5 : 4, kPanel = kTileDepth * kPanelRow;
  static constexpr int kBytesA = kTileRows * kPanelRow, kStage = kBytesA + kN * kPanelRow;
  static constexpr std::size_t kShared = std::size_t{kStages} * kStage + kPanelAtom + 2 * kStages * sizeof(Barrier);

  unsigned char* stages;
  Barrier *full, *empty;
  int at = 0, parity = 0;

  __device__ TileRing() {
    const auto start = reinterpret_cast<std::uintptr_t>(dynamic_shared<unsigned char>());
    stages = reinterpret_cast<unsigned char*>((start + kPanelAtom - 1) / kPanelAtom * kPanelAtom);
    full = reinterpret_cast<Barrier*>(stages + kStages * kStage);
    empty = full + kStages;
  }
  // One thread.
  __device__ void begin() const {
    for (int i = 0; i < kStages; ++i) begin_barrier(full[i], 1), begin_barrier(empty[i], 2);
  }
  __device__ void next() {
    if (++at < kStages) return;
    at = 0, parity ^= 1;
  }
  __device__ unsigned char* stage() const { return stages + at * kStage; }

  // 64 along k of both operands, from row `row` of A, column `col` of B and `k` on.
  __device__ void fill(const BoxMap& a, const BoxMap& b, int row, int col, int k) {
    wait(empty[at], parity ^ 1);
    arrive_expecting(full[at], kStage);
    copy_side<a_across, kTileRows>(stage(), a, row, k);
    copy_side<b_across, kN>(stage() + kBytesA, b, col, k);
    next();
  }
  template <bool across, int size>
  __device__ void copy_side(unsigned char* to, const BoxMap& from, int outer, int k) const {
    if constexpr (across)
      for (int i = 0; i < size / 64; ++i) copy_box(to + i * kPanel, from, k, outer + i * 64, full[at]);
    else
      copy_box(to, from, outer, k, full[at]);
  }

  __device__ void multiply(float (&sums)[kN / 2], int group) const {
    const unsigned char* a = stage();
    group_fence();
#pragma unroll
    for (int k = 0; k < kTileDepth; k += 16)
      group_multiply_add<a_across, b_across>(sums, part_of<a_across>(a, group * kGroupRows, k),
                                             part_of<b_across>(a + kBytesA, 0, k));
    group_commit();
  }
  template <bool across>
  __device__ static Operand part_of(const unsigned char* panels, int outer, int k) {
    if constexpr (across) return {panels + outer / 64 * kPanel + k * kPanelRow, kPanel};
    return {panels + outer * kPanelRow + k * 2, 0};
  }
};

// The tiles of a block, one after another.
template <int capacity, int kN>
struct TileWalk {
  const TileSums<capacity>& sums;
  int tile = static_cast<int>(blockIdx.x), sum = 0;
  int row = 0, col = 0;  // of the tile's first element in c

  __device__ explicit TileWalk(const TileSums<capacity>& s) : sums(s) { find(); }
  __device__ bool more() const { return sum < sums.count; }
  __device__ void next() {
    tile += static_cast<int>(gridDim.x);
    find();
  }
  __device__ const View& c() const { return sums.c[sum]; }

 private:
  __device__ void find() {
    while (sum < sums.count && sums.first_tile[sum + 1] <= tile) ++sum;
    if (!more()) return;
    const auto tiles = [](std::int64_t count, int size) { return static_cast<int>((count + size - 1) / size); };
    const TilePlace place =
        place_of_tile(tile - sums.first_tile[sum], tiles(c().rows, kTileRows), tiles(c().cols, kN));
    row = place.row * kTileRows, col = place.column * kN;
  }
};

// What one thread of a group holds of a tile: see warpgroup.h. Where the whole tile is inside and c allows two columns at
// once, nothing is asked on the way, so that all reads are under way together. Wide tiles always are so, but for rows.
template <int kN>
class TileFragment {
 public:
  float sums[kN / 2];

  __device__ TileFragment(int tile_row, int tile_col, const View& c)
      : c_(c),
        rows_(static_cast<int>(c.rows)),
        cols_(static_cast<int>(c.cols)),
        whole_(tile_row + kTileRows <= c.rows && tile_col + kN <= c.cols && c.quads) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    row_ = tile_row + warp * 16 + lane / 4, col_ = tile_col + lane % 4 * 2;
  }

  __device__ void begin(bool from_c) {
    if (from_c) return take<true>(c_, 1);
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
  }
  __device__ void add(const View& bias, const View& more) {
    if constexpr (kN == kWideTile) return;
    if (bias) take<false>(bias, 0);
    if (more) take<false>(more, 1);
  }
  __device__ void end() const {
    const bool eights =
        c_.dtype == Dtype::bf16 && c_.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(c_.data) % 16 == 0;
    if (eights)
      kN == kWideTile || whole_ ? put_halves<true>() : put_halves<false>();
    else if (kN == kWideTile || (whole_ && c_.dtype == Dtype::f32))
      put_whole_pairs();
    else if constexpr (kN != kWideTile)
      put_pairs();
  }

 private:
  // Adds x, or its only row where `down` is 0; alone: x is the sums.
  template <bool alone>
  __device__ void take(const View& x, int down) {
    if constexpr (kN == kWideTile) return take_whole<alone>(x.at<const float>(row_, col_), 8 * x.stride);
    if (!whole_ || !x.quads) return take_some<alone>(x, down);
    if (x.dtype == Dtype::f32)
      take_whole<alone>(x.at<const float>(down * row_, col_), down * 8 * x.stride);
    else
      take_whole<alone>(x.at<const std::uint16_t>(down * row_, col_), down * 8 * x.stride);
  }
  // Some at a time: what is read ahead takes registers.
  template <bool alone, typename T>
  __device__ void take_whole(const T* first, std::int64_t eight_rows) {
    constexpr int kAhead = 16;
    const T* rows[2] = {first, first + eight_rows};
#pragma unroll
    for (int i = 0; i < kN / 2; i += 2 * kAhead) {
      float2 read[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        read[j] = row_ + j % 2 * 8 < rows_ ? pair(rows[j % 2] + (i / 2 + j) / 2 * 8) : make_float2(0, 0);
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        sums[i + 2 * j] = alone ? read[j].x : sums[i + 2 * j] + read[j].x;
        sums[i + 2 * j + 1] = alone ? read[j].y : sums[i + 2 * j + 1] + read[j].y;
      }
    }
  }
  __device__ static float2 pair(const float* from) { return *reinterpret_cast<const float2*>(from); }
  __device__ static float2 pair(const std::uint16_t* from) {
    const unsigned both = *reinterpret_cast<const unsigned*>(from);
    return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xFFFF0000U));
  }
  template <bool alone>
  __device__ void take_some(const View& x, int down) {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) {
      int row = row_ + i / 2 % 2 * 8, col = col_ + i / 4 * 8 + i % 2;
      keep_here(row), keep_here(col);
      const float one = row < rows_ && col < cols_ ? x.get(down * row, col) : 0.0F;
      sums[i] = alone ? one : sums[i] + one;
    }
  }

  __device__ void put_pairs() const {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) {
      int row = row_ + i / 2 % 2 * 8, col = col_ + i / 4 * 8 + i % 2;
      keep_here(row), keep_here(col);
      if (row < rows_ && col < cols_) c_.put(row, col, sums[i]);
    }
  }
  __device__ void put_whole_pairs() const {
    float* rows[2] = {c_.at<float>(row_, col_), c_.at<float>(row_ + 8, col_)};
#pragma unroll
    for (int i = 0; i < kN / 2; i += 2)
      if (row_ + i / 2 % 2 * 8 < rows_)
        *reinterpret_cast<float2*>(rows[i / 2 % 2] + i / 4 * 8) = make_float2(sums[i], sums[i + 1]);
  }

  // Four lanes have two columns each of four times eight: they swap, so that each has eight neighbours to write at once.
  template <bool whole>
  __device__ void put_halves() const {
    const int t = static_cast<int>(threadIdx.x) % 4;
    const bool odd = t % 2 == 1, high = t / 2 == 1;
#pragma unroll
    for (int i = 0; i < kN / 2; i += 16)
#pragma unroll
      for (int half = 0; half < 4; half += 2) {
        unsigned words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) words[j] = pack_halves(sums[i + half + 4 * j], sums[i + half + 4 * j + 1]);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
          const unsigned other = __shfl_xor_sync(0xFFFFFFFFU, odd ? words[j] : words[j + 1], 1);
          (odd ? words[j] : words[j + 1]) = other;
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const unsigned other = __shfl_xor_sync(0xFFFFFFFFU, high ? words[j] : words[j + 2], 2);
          (high ? words[j] : words[j + 2]) = other;
        }
        put_eight<whole>(words, row_ + half * 4, col_ + i / 4 * 8 + 6 * t);
      }
  }
  template <bool whole>
  __device__ void put_eight(const unsigned (&words)[4], int row, int col) const {
    if (row >= rows_ || (!whole && col >= cols_)) return;
    std::uint16_t* to = c_.at<std::uint16_t>(row, col);
    if (whole || col + 8 <= cols_)
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    else
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (col + j < cols_) to[j] = static_cast<std::uint16_t>(words[j / 2] >> j % 2 * 16);
  }

  const View& c_;
  int row_, col_, rows_, cols_;  // of its first element; of c
  bool whole_;
};

// The thread that feeds.
template <bool a_across, bool b_across, int kN, int capacity>
__device__ void feed_tiles(const TileSums<capacity>& sums, TileRing<a_across, b_across, kN>& ring) {
  for (TileWalk<capacity, kN> walk(sums); walk.more(); walk.next()) {
    const int row = walk.row + sums.first_row[walk.sum];
    for (int run = sums.first_run[walk.sum]; run < sums.first_run[walk.sum + 1]; ++run)
      for (int step = 0; step < sums.steps[run]; ++step)
        ring.fill(sums.a[sums.one_a ? 0 : run], sums.b[run], row, walk.col, step * kTileDepth);
  }
}

// A group's part of a tile: `steps` stages, each given back when its products are over.
template <bool a_across, bool b_across, int kN>
__device__ void multiply_tile(float (&sums)[kN / 2], TileRing<a_across, b_across, kN>& ring, int steps, int group) {
  if (steps == 0) return;
  const bool tells = threadIdx.x % 128 == 0;
  wait(ring.full[ring.at], ring.parity);
  hold(sums);
  ring.multiply(sums, group);  // apart, so that from the loop's begin to its end sums are only the tensor cores'
  Barrier* last = &ring.empty[ring.at];
  ring.next();
  for (int step = 1; step < steps; ++step) {
    wait(ring.full[ring.at], ring.parity);
    ring.multiply(sums, group);
    group_wait<1>();
    if (tells) arrive(*last);
    last = &ring.empty[ring.at];
    ring.next();
  }
  group_wait<0>();
  hold(sums);
  if (tells) arrive(*last);
}

template <bool a_across, bool b_across, int kN, int capacity>
__global__ void __launch_bounds__(kTileThreads, 1) sum_tiles(const __grid_constant__ TileSums<capacity> sums) {
  TileRing<a_across, b_across, kN> ring;
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 2) {
    shrink_registers<40>();
    if (threadIdx.x == 256) feed_tiles<a_across, b_across, kN, capacity>(sums, ring);
  } else {
    grow_registers<232>();
    for (TileWalk<capacity, kN> walk(sums); walk.more(); walk.next()) {
      int steps = 0;
      for (int run = sums.first_run[walk.sum]; run < sums.first_run[walk.sum + 1]; ++run) steps += sums.steps[run];
      TileFragment<kN> fragment(walk.row, walk.col, walk.c());
      fragment.begin(sums.accumulate);
      multiply_tile<a_across, b_across, kN>(fragment.sums, ring, steps, group);
      fragment.add(sums.bias, sums.add);
      fragment.end();
    }
  }
}

// Wide tiles where columns fill them and nothing is asked of them but to be written.
inline int tile_columns_wgmma(const Product& op) {
  static const char* const forced = std::getenv("TROUPE_TILE");
  const bool plain = !op.bias && !op.add && rows_aligned(op.c) && (!op.accumulate || op.transpose_a);
  return plain && op.c.cols % kWideTile == 0 && forced == nullptr ? kWideTile : kNarrowTile;
}
inline int tile_columns_wgmma(const GroupedProduct& op) {
  static const char* const forced = std::getenv("TROUPE_TILE");
  return rows_aligned(op.c) && op.c.cols % kWideTile == 0 && forced == nullptr ? kWideTile : kNarrowTile;
}
inline int tile_steps(std::int64_t depth) { return static_cast<int>((depth + kTileDepth - 1) / kTileDepth); }

// An operand's map; `across`: k runs down its rows.
template <int size>
BoxMap side_map(const HalfMatrix& x, bool across) {
  return x.rows > 0 && x.cols > 0 ? box_map(x, across ? kTileDepth : size) : BoxMap{};
}

// Numbers the tiles of all sums; the blocks of their launch.
template <int kN, int capacity>
unsigned number_tiles(TileSums<capacity>& sums) {
  sums.first_tile[0] = 0;
  for (int s = 0; s < sums.count; ++s)
    sums.first_tile[s + 1] = sums.first_tile[s] + static_cast<int>(blocks_for(sums.c[s].rows, kTileRows) *
                                                                   blocks_for(sums.c[s].cols, kN));
  return std::min(static_cast<unsigned>(sums.first_tile[sums.count]), kMultiprocessors);
}

template <bool a_across, bool b_across, int kN, int capacity>
void launch_sums(TileSums<capacity>& sums, Queue& queue) {
  const unsigned blocks = number_tiles<kN>(sums);
  launch(queue, blocks, kTileThreads, TileRing<a_across, b_across, kN>::kShared,
         sum_tiles<a_across, b_across, kN, capacity>, sums);
}

}  // namespace troupe::cuda
