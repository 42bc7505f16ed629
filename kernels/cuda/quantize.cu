// codes = e4m3(x / scale of its tile), scale = max(largest |x|, floor) / 448, at least 2^-126: the CPU's bits
// (kernels/cpu/quantize.cc). Both are assigned. Every element is read once; codes are written along k.
#include "kernels/cuda/quantize.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cuda/codes.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/view.h"
#include "kernels/shapes.h"
#include "kernels/tiles.h"

namespace troupe::cuda {

namespace {

constexpr int kMatricesMax = 64;  // of a launch: a kernel's parameter
constexpr int kSide = static_cast<int>(kScaledDepth), kEight = 8, kLanes = kSide / kEight, kThreads = 256;
constexpr int kDown = kThreads / kLanes, kRowsEach = kSide / kDown;

struct Matrix {
  View x;
  Codes to;
};
// A launch's blocks are those of one matrix after another, row by row of them.
struct Matrices {
  Matrix all[kMatricesMax];
  int first_block[kMatricesMax + 1], across[kMatricesMax];
  int count;
  float floor;
};

struct BlockPlace {
  int matrix, row, col;
};
__device__ inline BlockPlace place_of_block(const Matrices& matrices) {
  const int block = static_cast<int>(blockIdx.x);
  int first = 0, end = matrices.count;
  while (end - first > 1) {
    const int middle = (first + end) / 2;
    (matrices.first_block[middle] <= block ? first : end) = middle;
  }
  const int within = block - matrices.first_block[first], across = matrices.across[first];
  return {first, within / across, within % across};
}

// Eight neighbours of a row; what lies outside is zero. `whole`: bfloat16, one access.
template <bool whole>
__device__ void read_eight(float (&to)[kEight], const View& x, std::int64_t row, std::int64_t col) {
  float4 low = make_float4(0, 0, 0, 0), high = low;
  if (row < x.rows && col < x.cols) {
    if constexpr (whole) {
      const uint4 bits = *reinterpret_cast<const uint4*>(x.at<const std::uint16_t>(row, col));
      low = widen(make_uint2(bits.x, bits.y)), high = widen(make_uint2(bits.z, bits.w));
    } else {
      low = x.quad(row, col);
      if (col + 4 < x.cols) high = x.quad(row, col + 4);
    }
  }
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// Sizes are compared as integers: so a NaN is the largest of all.
__device__ inline unsigned size_of(float x) { return __float_as_uint(x) & 0x7FFFFFFFU; }
__device__ inline float scale_of(unsigned largest, float floor) {
  const float size = __uint_as_float(largest);
  const float scale = (size < floor ? floor : size) / kE4m3Max;
  return scale < 0x1p-126F ? 0x1p-126F : scale;
}

// Division by one scale: a product with its reciprocal, twice corrected by the rest, which is exact, is the quotient rounded
// to nearest (Markstein) wherever it is large enough to have a code. Small scales are lifted first, so that no rest
// underflows; an infinite one has codes of zero, but of an infinity.
struct Divisor {
  float by, reciprocal, lift;

  __device__ explicit Divisor(float scale) {
    const bool infinite = size_of(scale) == 0x7F800000U;
    lift = scale < 0x1p-60F ? 0x1p64F : 1.0F;
    by = infinite ? 0.0F : scale * lift;
    reciprocal = infinite ? 0.0F : 1.0F / by;
  }
  __device__ float quotient_of(float x) const {
    const float lifted = x * lift;
    float quotient = lifted * reciprocal;
    quotient = fmaf(fmaf(-quotient, by, lifted), reciprocal, quotient);
    quotient = fmaf(fmaf(-quotient, by, lifted), reciprocal, quotient);
    return __uint_as_float(size_of(quotient) | (__float_as_uint(x) & 0x80000000U));
  }
};
__device__ inline unsigned four_codes(float a, float b, float c, float d) {
  return pack_codes(a, b) | pack_codes(c, d) << 16;
}

// A product's tile reads scales beyond the last row: they are zero.
__device__ inline void clear_beyond(float* scales, const Codes& to) {
  for (std::int64_t row = to.rows + threadIdx.x; row < to.scale_stride; row += kThreads) scales[row] = 0;
}

// Tiles of one row: sixteen threads have one each time.
template <bool whole>
__global__ __launch_bounds__(kThreads) void quantize_rows(const __grid_constant__ Matrices matrices) {
  constexpr int kAtOnce = 4;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const BlockPlace place = place_of_block(matrices);
  const View& x = matrices.all[place.matrix].x;
  const Codes& to = matrices.all[place.matrix].to;
  const std::int64_t tile = place.col, col = tile * kSide + lane * kEight;
  const std::int64_t first = std::int64_t{place.row} * kDown * kAtOnce + threadIdx.x / kLanes;
  float* scales = to.scales + tile * to.scale_stride;
  if ((place.row + 1) * kDown * kAtOnce >= to.rows) clear_beyond(scales, to);
  float values[kAtOnce][kEight];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) read_eight<whole>(values[i], x, first + i * kDown, col);
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const std::int64_t row = first + i * kDown;
    float(&v)[kEight] = values[i];
    unsigned largest = 0;
#pragma unroll
    for (int j = 0; j < kEight; ++j) largest = max(largest, size_of(v[j]));
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      largest = max(largest, __shfl_xor_sync(kWarp, largest, distance));
    const float scale = scale_of(largest, matrices.floor);
    const Divisor divisor(scale);
#pragma unroll
    for (int j = 0; j < kEight; ++j) v[j] = divisor.quotient_of(v[j]);
    if (row >= to.rows) continue;
    if (lane == 0) scales[row] = scale;
    if (col < to.stride)
      *reinterpret_cast<uint2*>(to.data + row * to.stride + col) =
          make_uint2(four_codes(v[0], v[1], v[2], v[3]), four_codes(v[4], v[5], v[6], v[7]));
  }
}

// A square of kSide x kSide elements: one tile, or (columns) kSide tiles of one column. A thread has eight rows of eight
// neighbours. Turned codes pass through shared memory: there, eight of them stand together at a place that no two of
// sixteen threads share a bank of.
struct SquareMemory {
  unsigned largest[kThreads / 32][kSide];
  float scales[kSide];
  uint2 turned[kSide][kLanes];
};

// The scales of the square's columns, or of all.
template <bool columns>
__device__ void find_scales(const float (&v)[kRowsEach][kEight], float floor, SquareMemory& shared) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes, warp = thread / 32;
  unsigned all = 0;
#pragma unroll
  for (int j = 0; j < kEight; ++j) {
    unsigned largest = 0;
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) largest = max(largest, size_of(v[i][j]));
    if constexpr (columns) {
      largest = max(largest, __shfl_xor_sync(kWarp, largest, kLanes));
      if (thread % 32 < kLanes) shared.largest[warp][lane * kEight + j] = largest;
    }
    all = max(all, largest);
  }
  if constexpr (!columns) {
    all = __reduce_max_sync(kWarp, all);
    if (thread % 32 == 0) shared.largest[warp][0] = all;
  }
  __syncthreads();
  if (thread < (columns ? kSide : 1)) {
    unsigned largest = 0;
    for (int w = 0; w < kThreads / 32; ++w) largest = max(largest, shared.largest[w][thread]);
    shared.scales[thread] = scale_of(largest, floor);
  }
  __syncthreads();
}

template <bool whole, bool columns, bool turned>
__global__ __launch_bounds__(kThreads) void quantize_squares(const __grid_constant__ Matrices matrices) {
  __shared__ SquareMemory shared;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes, row = thread / kLanes * kRowsEach;
  const BlockPlace place = place_of_block(matrices);
  const View& x = matrices.all[place.matrix].x;
  const Codes& to = matrices.all[place.matrix].to;
  const std::int64_t first_row = std::int64_t{place.row} * kSide, first_col = std::int64_t{place.col} * kSide;
  float v[kRowsEach][kEight];
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) read_eight<whole>(v[i], x, first_row + row + i, first_col + lane * kEight);
  find_scales<columns>(v, matrices.floor, shared);
  float* scales = to.scales + place.row * to.scale_stride;
  if (columns && first_col + kSide >= to.rows) clear_beyond(scales, to);
  if (columns && thread < kSide && first_col + thread < to.rows) scales[first_col + thread] = shared.scales[thread];
  if (!columns && thread == 0)
    to.scales[turned ? place.row * to.scale_stride + place.col : place.col * to.scale_stride + place.row] =
        shared.scales[0];
#pragma unroll
  for (int j = 0; j < kEight; ++j) {
    const Divisor divisor(shared.scales[columns ? lane * kEight + j : 0]);
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) v[i][j] = divisor.quotient_of(v[i][j]);
  }
  if constexpr (turned) {
#pragma unroll
    for (int j = 0; j < kEight; ++j)
      shared.turned[lane * kEight + j][row / kEight ^ lane] =
          make_uint2(four_codes(v[0][j], v[1][j], v[2][j], v[3][j]), four_codes(v[4][j], v[5][j], v[6][j], v[7][j]));
    __syncthreads();
    for (int c = thread / kLanes; c < kSide && first_col + c < to.rows; c += kDown)
      if (first_row + lane * kEight < to.stride)
        *reinterpret_cast<uint2*>(to.data + (first_col + c) * to.stride + first_row + lane * kEight) =
            shared.turned[c][lane ^ c / kEight];
  } else if (first_col + lane * kEight < to.stride) {
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i)
      if (first_row + row + i < to.rows)
        *reinterpret_cast<uint2*>(to.data + (first_row + row + i) * to.stride + first_col + lane * kEight) =
            make_uint2(four_codes(v[i][0], v[i][1], v[i][2], v[i][3]), four_codes(v[i][4], v[i][5], v[i][6], v[i][7]));
  }
}
static_assert(kRowsEach == kEight);

template <bool whole>
void launch_quantize(const Matrices& matrices, bool columns, bool down, Queue& queue) {
  const auto kernel = columns && !down ? quantize_rows<whole>
                      : columns        ? quantize_squares<whole, true, true>
                      : down           ? quantize_squares<whole, false, true>
                                       : quantize_squares<whole, false, false>;
  launch(queue, static_cast<unsigned>(matrices.first_block[matrices.count]), kThreads, 0, kernel, matrices);
}

std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

// Codes of `tensors`, all or as many as a launch takes; how many those are.
std::size_t launch_some(const Tensor* tensors, const Codes* codes, std::size_t count, float floor, bool down,
                        Queue& queue) {
  Matrices matrices{};
  matrices.floor = floor;
  const bool columns = codes->width == 1;
  const int rows = columns && !down ? 4 * kDown : kSide;  // of a block
  bool whole = true;
  int& done = matrices.count;
  for (; done < static_cast<int>(std::min<std::size_t>(count, kMatricesMax)); ++done) {
    const Tensor& x = tensors[done];
    matrices.all[done] = {x, codes[done]};
    matrices.across[done] = std::max(1, static_cast<int>(blocks_for(x.cols, kSide)));
    matrices.first_block[done + 1] =
        matrices.first_block[done] + static_cast<int>(blocks_for(x.rows, rows) * blocks_for(x.cols, kSide));
    whole = whole && x.dtype == Dtype::bf16 && x.cols % kEight == 0 && rows_aligned(x);
  }
  whole ? launch_quantize<true>(matrices, columns, down, queue) : launch_quantize<false>(matrices, columns, down, queue);
  return static_cast<std::size_t>(done);
}

Codes codes_for(const Tensor& x, const Scaling& scaling, bool down, Queue& queue) {
  Codes codes{.rows = down ? x.cols : x.rows, .depth = down ? x.rows : x.cols, .width = scaling.width};
  codes.stride = round_up(codes.depth, 16);
  codes.scale_stride = round_up(tiles_count(codes.rows, codes.width) + kScaleRows, 4);
  codes.data = queue.take<unsigned char>(codes.rows * codes.stride);
  codes.scales = queue.take<float>(tiles_count(codes.depth, kScaledDepth) * codes.scale_stride);
  return codes;
}

}  // namespace

std::vector<Codes> quantize(const std::vector<Tensor>& tensors, const Scaling& scaling, bool down, Queue& queue) {
  CHECK(scaling.width == 1 || scaling.width == kScaledDepth, "tiles {} wide have no kernels for GPUs", scaling.width);
  std::vector<Codes> all;
  for (const Tensor& x : tensors) all.push_back(codes_for(x, scaling, down, queue));
  for (std::size_t done = 0; done < all.size();)
    done += launch_some(&tensors[done], &all[done], all.size() - done, scaling.floor, down, queue);
  return all;
}

Codes codes_of(const Tensor& codes, const Tensor& scales, const Scaling& scaling) {
  return {.data = static_cast<unsigned char*>(codes.data),
          .scales = static_cast<float*>(scales.data),
          .rows = codes.rows,
          .depth = codes.cols,
          .width = scaling.width,
          .stride = codes.stride,
          .scale_stride = scales.stride};
}

// What follows each other is two launches, one a way round.
std::size_t run_quantizations(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  std::vector<Tensor> tensors;
  std::vector<Codes> codes, turned;
  const Quantize* head = nullptr;
  for (std::size_t i = first; i < ops.size() && tensors.size() < kMatricesMax; ++i) {
    const auto* op = std::get_if<Quantize>(ops[i]);
    if (op == nullptr || (head != nullptr && op->scaling != head->scaling)) break;
    check(*ops[i]);
    head = op;
    tensors.push_back(op->x);
    codes.push_back(codes_of(op->codes, op->scales, op->scaling));
    turned.push_back(codes_of(op->turned, op->turned_scales, op->scaling));
  }
  if (head == nullptr) return 0;
  launch_some(tensors.data(), codes.data(), tensors.size(), head->scaling.floor, false, queue);
  launch_some(tensors.data(), turned.data(), tensors.size(), head->scaling.floor, true, queue);
  for (std::size_t i = first; i < first + tensors.size(); ++i) {
    const auto& op = std::get<Quantize>(*ops[i]);
    for (std::int64_t j = 0; op.digests && j < 4; ++j)
      run(Digest{digested(op)[static_cast<std::size_t>(j)], {}, op.digests.row_range(j, 1)}, queue);
  }
  return tensors.size();
}

void run(const Quantize& op, Queue& queue) {
  const Op one = op;
  run_quantizations({&one}, 0, queue);
}

}  // namespace troupe::cuda
