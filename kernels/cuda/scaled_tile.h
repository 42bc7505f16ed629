// Sums of products of E4M3 matrices on warpgroups: the tiles, the ring and the feeding thread of warpgroup_tile.h, whose
// stages are 128 codes deep here. A stage's products are a sum of their own, in four blocks of 32 on tensor cores; then
//   c[i,j] = fma(scale_a, scale_b * sum, c[i,j])   in float32, while the other group's products go on.
// The law: an element is such a chain over tiles of 128 along k, in order, that starts from c where the sum accumulates; it
// depends on no other row, and a sum may be cut along k at multiples of 128 (kScaledDepth), as the CPU's. Its bits are the
// CPU's only where tensor cores lose none (codes.h).
#pragma once

#include "kernels/cuda/codes.h"
#include "kernels/cuda/quantize.h"
#include "kernels/cuda/threads.h"
#include "kernels/cuda/warpgroup_tile.h"

namespace troupe::cuda {

// What a launch computes: of codes, whose boxes are those of half as many elements of two bytes.
template <int capacity>
struct ScaledSums {
  TileSums<capacity> tiles;
  const float *a_scales[capacity], *b_scales[capacity];  // of a run; a_scales[0] of all where `one_a`
  int a_stride[capacity], b_stride[capacity];            // from one tile of k to the next
  int a_width;
};

// Where columns have scales of their own, a stage has its scales beside its codes: of a tile's rows, from a multiple of 4
// on, and of its columns.
struct StageScales {
  float a[kScaleRows], b[kScaledDepth];
};

template <bool columns, Tiles tiles>
struct CodeRing : TileRing<false, false, tiles, columns ? 5 : 6> {
  using Base = TileRing<false, false, tiles, columns ? 5 : 6>;
  static constexpr int kScaleBytes = columns ? static_cast<int>(sizeof(StageScales)) : 0;
  static constexpr std::size_t kShared = Base::kShared + std::size_t{Base::kStages} * kScaleBytes;

  __device__ StageScales& scales() const {
    return reinterpret_cast<StageScales*>(this->empty + Base::kStages)[this->at];
  }
  template <int capacity>
  __device__ void copy_step(const ScaledSums<capacity>& sums, int run, int row, int col, int step) const {
    const int left = sums.tiles.one_a ? 0 : run;
    this->open(Base::kStage + kScaleBytes);
    this->copy_operands(sums.tiles.a[left], sums.tiles.b[run], row, col, step * kTileDepth);
    if constexpr (columns) {
      StageScales& to = scales();
      const float* a = sums.a_scales[left] + std::int64_t{step} * sums.a_stride[left] + row / sums.a_width / 4 * 4;
      copy_bytes(to.a, a, sizeof to.a, this->full[this->at]);
      copy_bytes(to.b, sums.b_scales[run] + std::int64_t{step} * sums.b_stride[run] + col, sizeof to.b,
                 this->full[this->at]);
    }
  }
};
static_assert(sizeof(StageScales) % 16 == 0 && sizeof(StageScales::a) % 16 == 0);

// The scales of a step that a thread's elements need. columns: each column of B has its own; else 128 share one.
template <bool columns, int kN>
struct StepScales {
  static_assert(kN == kScaledDepth);
  float a[2], b[columns ? kN / 4 : 1];

  __device__ float of(int i) const { return b[columns ? i / 4 * 2 + i % 2 : 0]; }
};

// A thread's scales of a tile of c, step after step: from the ring's stage, or (columns share one) from where they stand.
template <bool columns, int kN, int capacity>
class ScaleWalk {
 public:
  __device__ ScaleWalk(const ScaledSums<capacity>& sums, const TileWalk<capacity, kN>& walk)
      : sums_(sums), run_(sums.tiles.first_run[walk.sum] - 1) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int first = walk.row + sums.tiles.first_row[walk.sum], row = first + warp * 16 + lane / 4;
    row_ = row / sums.a_width, below_ = (row + 8) / sums.a_width - row_;
    if (columns) row_ -= first / sums.a_width / 4 * 4;
    col_ = columns ? lane % 4 * 2 : walk.col / static_cast<int>(kScaledDepth);
  }
  template <typename Ring>
  __device__ StepScales<columns, kN> next(const Ring& ring) {
    StepScales<columns, kN> scales;
    if constexpr (columns) {
      const StageScales& stage = ring.scales();
      scales.a[0] = stage.a[row_], scales.a[1] = stage.a[row_ + below_];
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        const float2 pair = *reinterpret_cast<const float2*>(&stage.b[col_ + 8 * j]);
        scales.b[2 * j] = pair.x, scales.b[2 * j + 1] = pair.y;
      }
    } else {
      while (left_ == 0) begin_run();
      scales.a[0] = a_[0], scales.a[1] = a_[below_], scales.b[0] = *b_;
      a_ += a_stride_, b_ += b_stride_, --left_;
    }
    return scales;
  }

 private:
  __device__ void begin_run() {
    ++run_;
    left_ = sums_.tiles.steps[run_];
    const int a = sums_.tiles.one_a ? 0 : run_;
    a_ = sums_.a_scales[a] + row_, b_ = sums_.b_scales[run_] + col_;
    a_stride_ = sums_.a_stride[a], b_stride_ = sums_.b_stride[run_];
  }

  const ScaledSums<capacity>& sums_;
  const float *a_ = nullptr, *b_ = nullptr;
  int run_, left_ = 0, row_, below_, col_, a_stride_ = 0, b_stride_ = 0;
};

// 128 along k of a group's rows: part = their products, under way.
template <typename Ring>
__device__ void multiply_codes(float (&part)[Ring::kN / 2], const Ring& ring, int group) {
  const unsigned char *a = ring.stage(), *b = a + Ring::kBytesA;
  const auto part_of = [](const unsigned char* panels, int row, int k) {
    return Operand{panels + row * kPanelRow + k, 0};
  };
  group_fence();
  group_multiply_codes<true>(part, part_of(a, group * kGroupRows, 0), part_of(b, 0, 0));
#pragma unroll
  for (int k = 32; k < kPanelRow; k += 32)
    group_multiply_codes<false>(part, part_of(a, group * kGroupRows, k), part_of(b, 0, k));
  group_commit();
}

template <bool columns, int kN>
__device__ void add_scaled(float (&sums)[kN / 2], const float (&part)[kN / 2], const StepScales<columns, kN>& scales) {
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) sums[i] = fmaf(scales.a[i / 2 % 2], scales.of(i) * part[i], sums[i]);
}

// A group's part of a tile: a step's products are added when they are over.
template <bool columns, typename Ring, int capacity>
__device__ void multiply_scaled_tile(float (&sums)[Ring::kN / 2], Ring& ring,
                                     ScaleWalk<columns, Ring::kN, capacity>& walk, int steps, int group) {
  const bool tells = threadIdx.x % 32 == 0;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    wait(ring.full[ring.at], ring.parity);
    float part[Ring::kN / 2];
    multiply_codes(part, ring, group);
    const StepScales<columns, Ring::kN> scales = walk.next(ring);  // read while products are under way
    group_wait<0>();
    hold(part);
    if (tells) arrive(ring.empty[ring.at]);
    ring.next();
    add_scaled<columns, Ring::kN>(sums, part, scales);
    hold(sums);
  }
}

// The same with the next step's products under way while one's are added.
template <bool columns, typename Ring, int capacity>
class AheadTile {
 public:
  static constexpr int kN = Ring::kN;

  __device__ AheadTile(float (&sums)[kN / 2], Ring& ring, ScaleWalk<columns, kN, capacity>& walk, int group)
      : sums_(sums), ring_(ring), walk_(walk), group_(group) {}

  __device__ void multiply(int steps) {
    if (steps == 0) return;
    float one[kN / 2], other[kN / 2];
    StepScales<columns, kN> one_scales, other_scales;
    begin(one, one_scales);
#pragma unroll 1
    for (; steps > 2; steps -= 2) {
      begin(other, other_scales);
      end<1>(one, one_scales);
      begin(one, one_scales);
      end<1>(other, other_scales);
    }
    if (steps == 2) {
      begin(other, other_scales);
      end<1>(one, one_scales);
      end<0>(other, other_scales);
    } else {
      end<0>(one, one_scales);
    }
  }

 private:
  __device__ void begin(float (&part)[kN / 2], StepScales<columns, kN>& scales) {
    wait(ring_.full[ring_.at], ring_.parity);
    multiply_codes(part, ring_, group_);
    scales = walk_.next(ring_);
    ring_.next();
  }
  template <int under_way>
  __device__ void end(float (&part)[kN / 2], const StepScales<columns, kN>& scales) {
    group_wait<under_way>();
    hold(part);
    if (threadIdx.x % 32 == 0) arrive(ring_.empty[done_]);
    if (++done_ == Ring::kStages) done_ = 0;
    add_scaled<columns, kN>(sums_, part, scales);
    hold(sums_);
  }

  float (&sums_)[kN / 2];
  Ring& ring_;
  ScaleWalk<columns, kN, capacity>& walk_;
  int group_, done_ = ring_.at;
};

// Where registers hold two steps' products and scales.
template <bool columns, Tiles tiles>
constexpr bool runs_ahead() {
  return !columns && tiles == Tiles::narrow;
}

template <bool columns, Tiles tiles, int capacity>
__global__ void __launch_bounds__(kTileThreads, 1) scaled_tiles(const __grid_constant__ ScaledSums<capacity> sums) {
  using Ring = CodeRing<columns, tiles>;
  Ring ring;
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 2) {
    shrink_registers<24>();
    if (threadIdx.x == 256)
      feed_tiles<tiles>(sums.tiles, ring,
                        [&](int run, int row, int col, int step) { ring.copy_step(sums, run, row, col, step); });
  } else {
    grow_registers<240>();
    take_tiles<tiles>(sums.tiles, ring, group, [&](const auto& walk, auto& own) {
      ScaleWalk<columns, Ring::kN, capacity> scales(sums, walk);
      if constexpr (runs_ahead<columns, tiles>())
        AheadTile<columns, Ring, capacity>(own, ring, scales, group).multiply(walk.steps());
      else
        multiply_scaled_tile<columns>(own, ring, scales, walk.steps(), group);
    });
  }
}

// Codes in twos, as boxes take them.
inline Tensor code_pairs(const Codes& codes) {
  return {codes.data, codes.rows, codes.stride / 2, codes.stride / 2, Dtype::bf16};
}

// Run number `run` of a launch: a's rows times b's.
template <Tiles tiles, int capacity>
void set_run(ScaledSums<capacity>& sums, int run, const Codes& a, const Codes& b) {
  const int left = sums.tiles.one_a ? 0 : run;
  sums.tiles.a[left] = side_map(code_pairs(a), kTileRows, false);
  sums.tiles.b[run] = side_map(code_pairs(b), columns_of(tiles), false);
  sums.tiles.steps[run] = static_cast<int>(blocks_for(a.depth, kScaledDepth));
  sums.a_scales[left] = a.scales, sums.b_scales[run] = b.scales;
  sums.a_stride[left] = static_cast<int>(a.scale_stride), sums.b_stride[run] = static_cast<int>(b.scale_stride);
  sums.a_width = static_cast<int>(a.width);
}
// Sum number `sum` of a launch.
template <Tiles tiles, int capacity>
void set_sum(ScaledSums<capacity>& sums, int sum, const Tensor& c) {
  sums.tiles.c[sum] = c;
  if (tiles != Tiles::ragged) sums.tiles.boxes_of_c[sum] = box_map(c, kGroupRows);
}

inline Tiles scaled_tiles_for(const Tensor& c, const Tensor& bias, const Tensor& add, bool accumulate) {
  return tiles_for(c, bias, add, accumulate) == Tiles::ragged ? Tiles::ragged : Tiles::narrow;
}
template <typename With>
void with_scaled_tiles(Tiles tiles, With with) {
  if (tiles == Tiles::narrow) return with(std::integral_constant<Tiles, Tiles::narrow>());
  with(std::integral_constant<Tiles, Tiles::ragged>());
}

// `columns`: each column of b has scales of its own.
template <Tiles tiles, int capacity>
void launch_scaled(ScaledSums<capacity>& sums, bool columns, Queue& queue) {
  launch(queue, number_tiles<tiles>(sums.tiles), kTileThreads,
         columns ? CodeRing<true, tiles>::kShared : CodeRing<false, tiles>::kShared,
         columns ? scaled_tiles<true, tiles, capacity> : scaled_tiles<false, tiles, capacity>, sums);
}

}  // namespace troupe::cuda
