// Sums of products of bfloat16 matrices on warpgroups: c (m, n) = start + sum over runs of a b, in tiles of 128 rows and
// kN columns. A block is three warpgroups: one thread of the last has boxes of both operands copied into a ring of stages
// in shared memory, 64 along k each; the two others multiply, 64 rows each. Blocks stay and take tile after tile, so that
// the next tile's stages fill while one is written.
// The law: an element is one chain over k in blocks of 16, increasing, that starts from c where the sum accumulates; what
// lies beyond the matrices are zeros and adds nothing. So it depends on no other row nor on the tile, and a sum may be cut
// along k at multiples of 16.
#pragma once

#include <algorithm>
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
  BoxMap a[capacity], b[capacity];            // of a run; a[0] of all where `one_a`
  BoxMap boxes_of_c[capacity], boxes_of_add;  // of a sum, 64 rows each; not of ragged ones
  int steps[capacity];                        // of a run: its depth in kTileDepth
  View c[capacity];
  int first_row[capacity];                                // of a sum in its runs' a
  int first_run[capacity + 1], first_tile[capacity + 1];  // of each sum, and where the last ends
  View bias, add;
  int count;
  bool one_a, accumulate;
};

// What a thread holds of a group's 64 rows of a tile (see warpgroup.h), whose c comes and goes in boxes of 64 rows.
template <int kN>
struct BoxedFragment {
  static constexpr int kBox = kGroupRows * kBoxWidth;  // bytes
  float sums[kN / 2];

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
  }

  // Part `part` of a float32 matrix, two boxes, is the sums or is added to them.
  template <bool alone>
  __device__ void take(int part, const unsigned char* boxes) {
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 read = *reinterpret_cast<const float2*>(boxes + j / 4 * kBox + place_of_pair(j % 4, half));
        float* to = &sums[4 * (8 * part + j) + 2 * half];
        to[0] = alone ? read.x : to[0] + read.x, to[1] = alone ? read.y : to[1] + read.y;
      }
  }

  // Writes a box of c from column `first` (of the tile) on: 64 columns of bfloat16 or 32 of float32.
  __device__ void put_halves(int first, unsigned char* box) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = warp_row() + lane % 16, j = first / 8;
#pragma unroll
    for (int k = 0; k < 8; k += 2) {
      const float* from = &sums[4 * (j + k)];
      const unsigned words[4] = {pack_halves(from[0], from[1]), pack_halves(from[2], from[3]),
                                 pack_halves(from[4], from[5]), pack_halves(from[6], from[7])};
      store_matrices(box + panel_offset(row, k + lane / 16), words);
    }
  }
  __device__ void put_floats(int first, unsigned char* box) const {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* from = &sums[4 * (first / 8 + j) + 2 * half];
        *reinterpret_cast<float2*>(box + place_of_pair(j, half)) = make_float2(from[0], from[1]);
      }
  }

 private:
  __device__ static int warp_row() { return static_cast<int>(threadIdx.x) % 128 / 32 * 16; }
  // In a box of float32: columns 8j + 2t and the next, of this thread's upper or lower row.
  __device__ static int place_of_pair(int j, int half) {
    const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
    return panel_offset(warp_row() + lane / 4 + 8 * half, 2 * j + t / 2) + t % 2 * 8;
  }
};

// Where a thread's first element of 64 rows of a tile stands (see warpgroup.h), and where c ends.
struct ThreadPlace {
  int row, col, rows, cols;
};
__device__ inline ThreadPlace place_of_thread(int row, int col, const View& c) {
  const int warp = static_cast<int>(threadIdx.x) % 128 / 32, lane = static_cast<int>(threadIdx.x) % 32;
  return {row + warp * 16 + lane / 4, col + lane % 4 * 2, static_cast<int>(c.rows), static_cast<int>(c.cols)};
}

// The same of any c, with bias and any addend, read and written by the threads. Where all of it is inside and memory allows
// two columns at once, nothing is asked on the way.
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
  __device__ void end(const View& c) const { whole_&& c.dtype == Dtype::f32 ? put_whole_pairs(c) : put_pairs(c); }

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
      for (int j = 0; j < kAhead; ++j) read[j] = pair(rows[j % 2] + (i / 2 + j) / 2 * 8);
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

template <bool a_across, bool b_across, Tiles tiles, int stages_count = (columns_of(tiles) > 128 ? 4 : 6)>
struct TileRing {
  static constexpr int kN = columns_of(tiles), kStages = stages_count, kPanel = kTileDepth * kPanelRow;
  static constexpr int kBytesA = kTileRows * kPanelRow, kStage = kBytesA + kN * kPanelRow;
  static constexpr int kBox = BoxedFragment<kN>::kBox, kDesk = 4 * kBox;  // two boxes for each group to write from
  static constexpr std::size_t kShared =
      std::size_t{kStages} * kStage + kDesk + kPanelAtom + 2 * kStages * sizeof(Barrier);
  static_assert(kStage >= 4 * kBox);

  unsigned char* stages;
  Barrier *full, *empty;
  int at = 0, parity = 0;

  __device__ TileRing() {
    const auto start = reinterpret_cast<std::uintptr_t>(dynamic_shared<unsigned char>());
    stages = reinterpret_cast<unsigned char*>((start + kPanelAtom - 1) / kPanelAtom * kPanelAtom);
    full = reinterpret_cast<Barrier*>(stages + kStages * kStage + kDesk);
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
  __device__ unsigned char* desk(int group, int box) const {
    return stages + kStages * kStage + (2 * group + box) * kBox;
  }

  // The stage is free, and so many bytes will come into it.
  __device__ void open(int bytes) const {
    wait(empty[at], parity ^ 1);
    arrive_expecting(full[at], bytes);
  }
  // 64 along k of both operands, from row `row` of A, column `col` of B and `k` on.
  __device__ void copy_operands(const BoxMap& a, const BoxMap& b, int row, int col, int k) const {
    copy_side<a_across, kTileRows>(stage(), a, row, k);
    copy_side<b_across, kN>(stage() + kBytesA, b, col, k);
  }
  // 64 columns of a float32 matrix, from (row, col) on: two boxes for each group.
  __device__ void fill_with(const BoxMap& matrix, int row, int col) {
    open(4 * kBox);
    for (int i = 0; i < 4; ++i)
      copy_box(stage() + i * kBox, matrix, row + i / 2 * kGroupRows, col + i % 2 * 32, full[at]);
    next();
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
  int tile = static_cast<int>(blockIdx.x), turn = 0, sum = 0;
  int row = 0, col = 0;  // of the tile's first element in c

  __device__ explicit TileWalk(const TileSums<capacity>& s) : sums(s) { find(); }
  __device__ bool more() const { return sum < sums.count; }
  // Who came first in a turn comes last in the next: tiles that get shorter add up to the same for all blocks.
  __device__ void next() {
    const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
    ++turn;
    tile = turn * blocks + (turn % 2 == 0 ? block : blocks - 1 - block);
    find();
  }
  __device__ const View& c() const { return sums.c[sum]; }
  __device__ int steps() const {
    int steps = 0;
    for (int run = sums.first_run[sum]; run < sums.first_run[sum + 1]; ++run) steps += sums.steps[run];
    return steps;
  }

 private:
  __device__ void find() {
    while (sum < sums.count && sums.first_tile[sum + 1] <= tile) ++sum;
    if (!more()) return;
    const auto tiles = [](std::int64_t count, int size) { return static_cast<int>((count + size - 1) / size); };
    const TilePlace place = place_of_tile(tile - sums.first_tile[sum], tiles(c().rows, kTileRows), tiles(c().cols, kN));
    row = place.row * kTileRows, col = place.column * kN;
  }
};

// The thread that feeds: what a sum starts from, its steps, what is added to it. copy(run, row of its A, column, step) opens
// a stage and fills it.
template <Tiles tiles, typename Ring, int capacity, typename CopyStep>
__device__ void feed_tiles(const TileSums<capacity>& sums, Ring& ring, CopyStep copy) {
  const auto feed_matrix = [&](const BoxMap& matrix, int row, int col) {
    for (int part = 0; part < Ring::kN / 64; ++part) ring.fill_with(matrix, row, col + part * 64);
  };
  for (TileWalk<capacity, Ring::kN> walk(sums); walk.more(); walk.next()) {
    const int row = walk.row + sums.first_row[walk.sum];
    if (tiles != Tiles::ragged && sums.accumulate) feed_matrix(sums.boxes_of_c[walk.sum], walk.row, walk.col);
    for (int run = sums.first_run[walk.sum]; run < sums.first_run[walk.sum + 1]; ++run)
      for (int step = 0; step < sums.steps[run]; ++step, ring.next()) copy(run, row, walk.col, step);
    if (tiles != Tiles::ragged && sums.add) feed_matrix(sums.boxes_of_add, walk.row, walk.col);
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

// A matrix that comes through the ring's stages is the sums or is added to them.
template <bool alone, int kN, typename Ring>
__device__ void take_matrix(BoxedFragment<kN>& fragment, Ring& ring, int group) {
#pragma unroll
  for (int part = 0; part < kN / 64; ++part) {
    wait(ring.full[ring.at], ring.parity);
    fragment.template take<alone>(part, ring.stage() + 2 * group * Ring::kBox);
    fence_for_products();  // read before the stage is given back: copies don't wait for what threads have under way
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(ring.empty[ring.at]);
    ring.next();
  }
}

// The group's rows of a tile to c, box after box: one is written to shared memory while the one before leaves it.
template <int columns, int kN, typename Ring, typename Put>
__device__ void put_boxes(const Ring& ring, int group, const BoxMap& c, int row, int col, Put put) {
  const bool tells = threadIdx.x % 128 == 0;
#pragma unroll
  for (int first = 0; first < kN; first += columns) {
    unsigned char* box = ring.desk(group, first / columns % 2);
    if (tells) write_boxes_read<1>();
    meet_group(group);
    put(first, box);
    fence_for_products();
    meet_group(group);
    if (!tells) continue;
    write_box(c, row, col + first, box);
    write_boxes_commit();
  }
}

template <int kN, typename Ring, int capacity, typename Multiply>
__device__ void take_boxed_tile(const TileSums<capacity>& sums, const TileWalk<capacity, kN>& walk, Ring& ring,
                                int group, Multiply multiply) {
  BoxedFragment<kN> fragment;
  if (sums.accumulate)
    take_matrix<true>(fragment, ring, group);
  else
    fragment.clear();
  multiply(walk, fragment.sums);
  if (sums.add) take_matrix<false>(fragment, ring, group);
  const BoxMap& c = sums.boxes_of_c[walk.sum];
  const int row = walk.row + group * kGroupRows;
  if (walk.c().dtype == Dtype::bf16)
    put_boxes<64, kN>(ring, group, c, row, walk.col,
                      [&](int col, unsigned char* box) { fragment.put_halves(col, box); });
  else
    put_boxes<32, kN>(ring, group, c, row, walk.col,
                      [&](int col, unsigned char* box) { fragment.put_floats(col, box); });
}

template <int kN, int capacity, typename Multiply>
__device__ void take_ragged_tile(const TileSums<capacity>& sums, const TileWalk<capacity, kN>& walk, int group,
                                 Multiply multiply) {
  RaggedFragment<kN> fragment;
  fragment.place(walk.row + group * kGroupRows, walk.col, walk.c());
  fragment.begin(walk.c(), sums.accumulate);
  multiply(walk, fragment.sums);
  fragment.add(sums.bias, sums.add);
  fragment.end(walk.c());
}

// multiply(walk, sums) adds all products of the group's rows of a tile.
template <Tiles tiles, typename Ring, int capacity, typename Multiply>
__device__ void take_tiles(const TileSums<capacity>& sums, Ring& ring, int group, Multiply multiply) {
  for (TileWalk<capacity, columns_of(tiles)> walk(sums); walk.more(); walk.next()) {
    if constexpr (tiles == Tiles::ragged)
      take_ragged_tile(sums, walk, group, multiply);
    else
      take_boxed_tile(sums, walk, ring, group, multiply);
  }
  if (tiles != Tiles::ragged && threadIdx.x % 128 == 0) write_boxes_wait();
}

template <bool a_across, bool b_across, Tiles tiles, int capacity>
__global__ void __launch_bounds__(kTileThreads, 1) sum_tiles(const __grid_constant__ TileSums<capacity> sums) {
  TileRing<a_across, b_across, tiles> ring;
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 2) {
    shrink_registers<40>();
    if (threadIdx.x == 256)
      feed_tiles<tiles>(sums, ring, [&](int run, int row, int col, int step) {
        ring.open(ring.kStage);
        ring.copy_operands(sums.a[sums.one_a ? 0 : run], sums.b[run], row, col, step * kTileDepth);
      });
  } else {
    grow_registers<232>();
    take_tiles<tiles>(sums, ring, group,
                      [&ring, group](const auto& walk, auto& own) { multiply_tile(own, ring, walk.steps(), group); });
  }
}

// Wide ones where they don't compute much more beyond c's columns. What depends on the rows of c decides nothing.
inline Tiles tiles_for(const Tensor& c, const Tensor& bias, const Tensor& add, bool accumulate) {
  const auto chunks = [](const Tensor& x) {
    return rows_aligned(x) && x.cols * static_cast<std::int64_t>(bytes_of(x.dtype)) % 16 == 0;
  };
  const bool boxes = !bias && chunks(c) && (!add || (add.dtype == Dtype::f32 && chunks(add)));
  if (!boxes || (accumulate && c.dtype != Dtype::f32)) return Tiles::ragged;
  const auto computed = [&](Tiles tiles) { return blocks_for(c.cols, columns_of(tiles)) * columns_of(tiles); };
  return 10 * computed(Tiles::wide) <= 11 * computed(Tiles::narrow) ? Tiles::wide : Tiles::narrow;
}
// Calls with(std::integral_constant) of these tiles.
template <typename With>
void with_tiles(Tiles tiles, With with) {
  if (tiles == Tiles::wide) return with(std::integral_constant<Tiles, Tiles::wide>());
  if (tiles == Tiles::narrow) return with(std::integral_constant<Tiles, Tiles::narrow>());
  with(std::integral_constant<Tiles, Tiles::ragged>());
}
inline int tile_steps(std::int64_t depth) { return static_cast<int>((depth + kTileDepth - 1) / kTileDepth); }

// An operand's map; `across`: k runs down its rows. `size`: a tile's rows or columns.
inline BoxMap side_map(const Tensor& x, int size, bool across) { return box_map(x, across ? kTileDepth : size); }

// Numbers the tiles of all sums; the blocks of their launch.
template <Tiles tiles, int capacity>
unsigned number_tiles(TileSums<capacity>& sums) {
  sums.first_tile[0] = 0;
  for (int s = 0; s < sums.count; ++s)
    sums.first_tile[s + 1] = sums.first_tile[s] + static_cast<int>(blocks_for(sums.c[s].rows, kTileRows) *
                                                                   blocks_for(sums.c[s].cols, columns_of(tiles)));
  return std::min(static_cast<unsigned>(sums.first_tile[sums.count]), multiprocessors());
}

template <bool a_across, bool b_across, Tiles tiles, int capacity>
void launch_sums(TileSums<capacity>& sums, Queue& queue) {
  const unsigned blocks = number_tiles<tiles>(sums);
  launch(queue, blocks, kTileThreads, TileRing<a_across, b_across, tiles>::kShared,
         sum_tiles<a_across, b_across, tiles, capacity>, sums);
}

}  // namespace troupe::cuda
