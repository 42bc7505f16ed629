// Sums of products of bfloat16 matrices on warpgroups: c (m, n) = start + sum over runs of a b, in tiles of 128 rows and
// kN columns. A block is three warpgroups: one thread of the last has boxes of both operands copied into a ring of stages
// in shared memory, 64 along k each; the two others multiply, 64 rows each. Blocks stay and take tile after tile, so that
// the next tile's stages fill while one is written.
// The law: an element is one chain over k in blocks of 16, increasing, that starts from c where the sum accumulates; what
// lies beyond the matrices are zeros and adds nothing. So it depends on no other row nor on the tile, and a sum may be cut
// along k at multiples of 16.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <type_traits>

#include "kernels/cuda/bulk.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/view.h"
#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

constexpr int kGroupRows = 64, kTileRows = 128, kTileDepth = 64;
constexpr int kTileThreads = 384;
// Of 256 columns, which read least; of 128; of 128 for any c.
enum class Tiles { wide, narrow, ragged };
constexpr int columns_of(Tiles tiles) { return tiles == Tiles::wide ? 256 : 128; }

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
  int ahead;
};

// Where a thread's first element of 64 rows of a tile stands (see warpgroup.h), and where c ends.
struct ThreadPlace {
  int row, col, rows, cols;
};
__device__ inline ThreadPlace place_of_thread(int row, int col, const View& c) {
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, lane = static_cast<int>(threadIdx.x) % 32;
  return {row + warp * 16 + lane / 4, col + lane % 4 * 2, static_cast<int>(c.rows), static_cast<int>(c.cols)};
}

// Eight neighbours of a row of bfloat16, of which c may lack some.
__device__ inline void put_eight(const View& c, const unsigned (&words)[4], int row, int col, int cols) {
  auto* to = c.at<std::uint16_t>(row, col);
  if (col + 8 <= cols)
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  else
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (col + j < cols) to[j] = static_cast<std::uint16_t>(words[j / 2] >> j % 2 * 16);
}

// Four lanes have two columns each of four times eight: they swap, so that each has eight neighbours to write at once.
// REQUIRES: c's rows begin at multiples of 16 bytes.
template <int count>
__device__ void put_halves(const float (&sums)[count], const ThreadPlace& at, const View& c) {
  const int t = static_cast<int>(threadIdx.x) % 4;
  const bool odd = t % 2 == 1, high = t / 2 == 1;
#pragma unroll
  for (int i = 0; i < count; i += 16)
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
      const int row = at.row + half * 4, col = at.col + i / 4 * 8 + 6 * t;
      if (row < at.rows && col < at.cols) put_eight(c, words, row, col, at.cols);
    }
}

// What a thread holds of 64 rows of a tile of a c whose rows are whole chunks of 16 bytes, as those of its addend, which
// is float32.
template <int kN>
class PlainFragment {
 public:
  float sums[kN / 2];

  __device__ void place(int row, int col, const View& c) { at_ = place_of_thread(row, col, c); }
  __device__ void begin(const View& c, bool from_c) {
    if (from_c) return take<true>(c);
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
  }
  __device__ void add(const View&, const View& more) {
    if constexpr (kN == 128)
      if (more) take<false>(more);
  }
  __device__ void end(const View& c) const { c.dtype == Dtype::bf16 ? put_halves(sums, at_, c) : put_pairs(c); }

 private:
  __device__ bool inside(int i) const { return at_.row + i / 2 % 2 * 8 < at_.rows && (kN == 256 || at_.col + i / 4 * 8 < at_.cols); }

  // Some at a time: what is read ahead takes registers.
  template <bool alone>
  __device__ void take(const View& x) {
    constexpr int kAhead = 16;
    const float* rows[2] = {x.at<const float>(at_.row, at_.col), x.at<const float>(at_.row + 8, at_.col)};
#pragma unroll
    for (int i = 0; i < kN / 2; i += 2 * kAhead) {
      float2 read[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        read[j] = inside(i + 2 * j) ? *reinterpret_cast<const float2*>(rows[j % 2] + (i / 2 + j) / 2 * 8)
                                    : make_float2(0, 0);
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        sums[i + 2 * j] = alone ? read[j].x : sums[i + 2 * j] + read[j].x;
        sums[i + 2 * j + 1] = alone ? read[j].y : sums[i + 2 * j + 1] + read[j].y;
      }
    }
  }
  __device__ void put_pairs(const View& c) const {
    float* rows[2] = {c.at<float>(at_.row, at_.col), c.at<float>(at_.row + 8, at_.col)};
#pragma unroll
    for (int i = 0; i < kN / 2; i += 2)
      if (inside(i)) *reinterpret_cast<float2*>(rows[i / 2 % 2] + i / 4 * 8) = make_float2(sums[i], sums[i + 1]);
  }

  ThreadPlace at_;
};

// The same of any c, with bias and any addend. Where all of it is inside and memory allows two columns at once, nothing is
// asked on the way.
template <int kN>
class RaggedFragment {
 public:
  float sums[kN / 2];

  __device__ void place(int row, int col, const View& c) {
    at_ = place_of_thread(row, col, c);
    whole_ = row + kGroupRows <= c.rows && col + kN <= c.cols && c.quads;
  }

  __device__ void begin(const View& c, bool from_c) {
    if (from_c) return take<true>(c, 1);
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
  }
  __device__ void add(const View& bias, const View& more) {
    if (bias) take<false>(bias, 0);
    if (more) take<false>(more, 1);
  }
  __device__ void end(const View& c) const {
    const bool eights =
        c.dtype == Dtype::bf16 && c.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(c.data) % 16 == 0;
    if (eights)
      put_halves(sums, at_, c);
    else
      whole_ && c.dtype == Dtype::f32 ? put_whole_pairs(c) : put_pairs(c);
  }

 private:
  // Adds x, or its only row where `down` is 0; alone: x is the sums.
  template <bool alone>
  __device__ void take(const View& x, int down) {
    if (!whole_ || !x.quads) return take_some<alone>(x, down);
    if (x.dtype == Dtype::f32)
      take_whole<alone>(x.at<const float>(down * at_.row, at_.col), down * 8 * x.stride);
    else
      take_whole<alone>(x.at<const std::uint16_t>(down * at_.row, at_.col), down * 8 * x.stride);
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
        read[j] = pair(rows[j % 2] + (i / 2 + j) / 2 * 8);
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
      int row = at_.row + i / 2 % 2 * 8, col = at_.col + i / 4 * 8 + i % 2;
      keep_here(row), keep_here(col);
      const float one = row < at_.rows && col < at_.cols ? x.get(down * row, col) : 0.0F;
      sums[i] = alone ? one : sums[i] + one;
    }
  }

  __device__ void put_pairs(const View& c) const {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) {
      int row = at_.row + i / 2 % 2 * 8, col = at_.col + i / 4 * 8 + i % 2;
      keep_here(row), keep_here(col);
      if (row < at_.rows && col < at_.cols) c.put(row, col, sums[i]);
    }
  }
  __device__ void put_whole_pairs(const View& c) const {
    float* rows[2] = {c.at<float>(at_.row, at_.col), c.at<float>(at_.row + 8, at_.col)};
#pragma unroll
    for (int i = 0; i < kN / 2; i += 2)
      *reinterpret_cast<float2*>(rows[i / 2 % 2] + i / 4 * 8) = make_float2(sums[i], sums[i + 1]);
  }

  ThreadPlace at_;
  bool whole_;
};

template <bool a_across, bool b_across, Tiles tiles>
struct TileRing {
  static constexpr int kN = columns_of(tiles), kStages = kN == 256 ? 4 : 6, kPanel = kTileDepth * kPanelRow;
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
  // One thread. A stage is given back by every warp that read it.
  __device__ void begin() const {
    for (int i = 0; i < kStages; ++i) begin_barrier(full[i], 1), begin_barrier(empty[i], 8);
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
  __device__ void fetch(const BoxMap& a, const BoxMap& b, int row, int col, int k) const {
    fetch_side<a_across, kTileRows>(a, row, k);
    fetch_side<b_across, kN>(b, col, k);
  }
  template <bool across, int size>
  __device__ static void fetch_side(const BoxMap& from, int outer, int k) {
    if constexpr (across)
      for (int i = 0; i < size / 64; ++i) fetch_box(from, k, outer + i * 64);
    else
      fetch_box(from, outer, k);
  }
  template <bool across, int size>
  __device__ void copy_side(unsigned char* to, const BoxMap& from, int outer, int k) const {
    if constexpr (across)
      for (int i = 0; i < size / 64; ++i) copy_box(to + i * kPanel, from, k, outer + i * 64, full[at]);
    else
      copy_box(to, from, outer, k, full[at]);
  }

  // The group's 64 rows.
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

// One step after another of a block's tiles: what fills a stage.
template <int capacity, int kN>
class FeedPlace {
 public:
  __device__ explicit FeedPlace(const TileSums<capacity>& sums) : sums_(sums), walk_(sums) { begin_tile(); }
  __device__ bool more() const { return walk_.more(); }
  __device__ void next() {
    ++step_;
    settle();
  }
  __device__ const BoxMap& a() const { return sums_.a[sums_.one_a ? 0 : run_]; }
  __device__ const BoxMap& b() const { return sums_.b[run_]; }
  __device__ int row() const { return walk_.row + sums_.first_row[walk_.sum]; }
  __device__ int col() const { return walk_.col; }
  __device__ int k() const { return step_ * kTileDepth; }

 private:
  __device__ void begin_tile() {
    if (!walk_.more()) return;
    run_ = sums_.first_run[walk_.sum], step_ = 0;
    settle();
  }
  // To the next step that there is.
  __device__ void settle() {
    while (walk_.more()) {
      for (; run_ < sums_.first_run[walk_.sum + 1]; ++run_, step_ = 0)
        if (step_ < sums_.steps[run_]) return;
      walk_.next();
      if (walk_.more()) run_ = sums_.first_run[walk_.sum], step_ = 0;
    }
  }

  const TileSums<capacity>& sums_;
  TileWalk<capacity, kN> walk_;
  int run_ = 0, step_ = 0;
};

// The thread that feeds. Some steps ahead of the stages it has boxes brought into the L2 cache.
template <typename Ring, int capacity>
__device__ void feed_tiles(const TileSums<capacity>& sums, Ring& ring) {
  FeedPlace<capacity, Ring::kN> place(sums), ahead(sums);
  for (int i = 0; i < sums.ahead && ahead.more(); ++i) ahead.next();
  for (; place.more(); place.next()) {
    if (sums.ahead > 0 && ahead.more()) {
      ring.fetch(ahead.a(), ahead.b(), ahead.row(), ahead.col(), ahead.k());
      ahead.next();
    }
    ring.fill(place.a(), place.b(), place.row(), place.col(), place.k());
  }
}

// `steps` stages of a tile, each given back when its products are over.
template <typename Ring>
__device__ void multiply_tile(float (&sums)[Ring::kN / 2], Ring& ring, int steps, int group) {
  if (steps == 0) return;
  const bool tells = threadIdx.x % 32 == 0;
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

template <Tiles tiles, typename Ring, int capacity>
__device__ void take_tiles(const TileSums<capacity>& sums, Ring& ring, int group) {
  constexpr int kN = columns_of(tiles);
  for (TileWalk<capacity, kN> walk(sums); walk.more(); walk.next()) {
    int steps = 0;
    for (int run = sums.first_run[walk.sum]; run < sums.first_run[walk.sum + 1]; ++run) steps += sums.steps[run];
    std::conditional_t<tiles == Tiles::ragged, RaggedFragment<kN>, PlainFragment<kN>> of;
    of.place(walk.row + group * kGroupRows, walk.col, walk.c());
    of.begin(walk.c(), sums.accumulate);
    multiply_tile(of.sums, ring, steps, group);
    of.add(sums.bias, sums.add);
    of.end(walk.c());
  }
}

template <bool a_across, bool b_across, Tiles tiles, int capacity>
__global__ void __launch_bounds__(kTileThreads, 1) sum_tiles(const __grid_constant__ TileSums<capacity> sums) {
  TileRing<a_across, b_across, tiles> ring;
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 2) {
    shrink_registers<40>();
    if (threadIdx.x == 256) feed_tiles(sums, ring);
  } else {
    grow_registers<232>();
    take_tiles<tiles>(sums, ring, group);
  }
}

// What depends on the rows of c decides nothing.
inline Tiles tiles_for(const Tensor& c, const Tensor& bias, const Tensor& add, bool accumulate) {
  const auto chunks = [](const Tensor& x) { return rows_aligned(x) && x.cols % 8 == 0; };
  const bool plain = !bias && chunks(c) && (!add || (add.dtype == Dtype::f32 && chunks(add)));
  if (!plain || (accumulate && c.dtype != Dtype::f32)) return Tiles::ragged;
  return c.cols % columns_of(Tiles::wide) == 0 && !add ? Tiles::wide : Tiles::narrow;
}
// Calls with(std::integral_constant) of these tiles.
template <typename With>
void with_tiles(Tiles tiles, With with) {
  if (tiles == Tiles::wide) return with(std::integral_constant<Tiles, Tiles::wide>());
  if (tiles == Tiles::narrow) return with(std::integral_constant<Tiles, Tiles::narrow>());
  with(std::integral_constant<Tiles, Tiles::ragged>());
}
inline int tile_steps(std::int64_t depth) { return static_cast<int>((depth + kTileDepth - 1) / kTileDepth); }

// An operand's map; `across`: k runs down its rows.
template <int size>
BoxMap side_map(const HalfMatrix& x, bool across) {
  return x.rows > 0 && x.cols > 0 ? box_map(x, across ? kTileDepth : size) : BoxMap{};
}

template <bool a_across, bool b_across, Tiles tiles, int capacity>
void launch_sums(TileSums<capacity>& sums, Queue& queue) {
  static const char* const forced = std::getenv("TROUPE_AHEAD");
  sums.ahead = forced == nullptr ? 4 : std::atoi(forced);
  sums.first_tile[0] = 0;
  for (int s = 0; s < sums.count; ++s)
    sums.first_tile[s + 1] = sums.first_tile[s] + static_cast<int>(blocks_for(sums.c[s].rows, kTileRows) *
                                                                   blocks_for(sums.c[s].cols, columns_of(tiles)));
  launch(queue, std::min(static_cast<unsigned>(sums.first_tile[sums.count]), multiprocessors()), kTileThreads,
         TileRing<a_across, b_across, tiles>::kShared, sum_tiles<a_across, b_across, tiles, capacity>, sums);
}

}  // namespace troupe::cuda
