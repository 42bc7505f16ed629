// codes = e4m3(x / scale of its tile), scale = max(largest |x|, floor) / 448, at least 2^-126: the CPU's bits
// (kernels/cpu/quantize.cc). Both are assigned. Every element is read once; codes are written along k.
#include "kernels/cuda/quantize.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/cuda/codes.h"
#include "kernels/cuda/view.h"
#include "kernels/tiles.h"

namespace troupe::cuda {

namespace {

constexpr int kMatricesMax = 64;  // of a launch: a kernel's parameter
constexpr int kSide = static_cast<int>(kScaledDepth), kEight = 8, kLanes = kSide / kEight, kThreads = 256;
constexpr int kDown = kThreads / kLanes, kRowsEach = kSide / kDown;

struct Source {
  View x[kMatricesMax];
};
// Of the first matrix; the others' lie so many elements behind.
struct Target {
  unsigned char* codes;
  float* scales;
  std::int64_t rows, stride, scale_stride, codes_each, scales_each;
  float floor;
};

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

// Tiles of one row: sixteen threads have one each time.
template <bool whole>
__global__ __launch_bounds__(kThreads) void quantize_rows(const __grid_constant__ Source source,
                                                          const __grid_constant__ Target to) {
  constexpr int kAtOnce = 4;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const View& x = source.x[blockIdx.z];
  const std::int64_t tile = blockIdx.x, col = tile * kSide + lane * kEight;
  const std::int64_t first = std::int64_t{blockIdx.y} * kDown * kAtOnce + threadIdx.x / kLanes;
  unsigned char* codes = to.codes + blockIdx.z * to.codes_each;
  float* scales = to.scales + blockIdx.z * to.scales_each + tile * to.scale_stride;
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
    const float scale = scale_of(largest, to.floor);
    const Divisor divisor(scale);
#pragma unroll
    for (int j = 0; j < kEight; ++j) v[j] = divisor.quotient_of(v[j]);
    if (row >= to.rows) continue;
    if (lane == 0) scales[row] = scale;
    if (col < to.stride)
      *reinterpret_cast<uint2*>(codes + row * to.stride + col) =
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
__global__ __launch_bounds__(kThreads) void quantize_squares(const __grid_constant__ Source source,
                                                             const __grid_constant__ Target to) {
  __shared__ SquareMemory shared;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes, row = thread / kLanes * kRowsEach;
  const View& x = source.x[blockIdx.z];
  const std::int64_t first_row = std::int64_t{blockIdx.y} * kSide, first_col = std::int64_t{blockIdx.x} * kSide;
  unsigned char* codes = to.codes + blockIdx.z * to.codes_each;
  float v[kRowsEach][kEight];
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) read_eight<whole>(v[i], x, first_row + row + i, first_col + lane * kEight);
  find_scales<columns>(v, to.floor, shared);
  float* scales = to.scales + blockIdx.z * to.scales_each;
  if (columns && thread < kSide && first_col + thread < to.rows)
    scales[blockIdx.y * to.scale_stride + first_col + thread] = shared.scales[thread];
  if (!columns && thread == 0)
    scales[turned ? blockIdx.y * to.scale_stride + blockIdx.x : blockIdx.x * to.scale_stride + blockIdx.y] =
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
        *reinterpret_cast<uint2*>(codes + (first_col + c) * to.stride + first_row + lane * kEight) =
            shared.turned[c][lane ^ c / kEight];
  } else if (first_col + lane * kEight < to.stride) {
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i)
      if (first_row + row + i < to.rows)
        *reinterpret_cast<uint2*>(codes + (first_row + row + i) * to.stride + first_col + lane * kEight) =
            make_uint2(four_codes(v[i][0], v[i][1], v[i][2], v[i][3]), four_codes(v[i][4], v[i][5], v[i][6], v[i][7]));
  }
}
static_assert(kRowsEach == kEight);

template <bool whole>
void launch_quantize(const Source& source, const Target& to, const Tensor& x, unsigned matrices, bool columns,
                     bool down, Queue& queue) {
  const dim3 squares(blocks_for(x.cols, kSide), blocks_for(x.rows, kSide), matrices);
  if (columns && !down)
    launch(queue, dim3(squares.x, blocks_for(x.rows, 4 * kDown), matrices), kThreads, 0, quantize_rows<whole>, source,
           to);
  else if (columns)
    launch(queue, squares, kThreads, 0, quantize_squares<whole, true, true>, source, to);
  else if (down)
    launch(queue, squares, kThreads, 0, quantize_squares<whole, false, true>, source, to);
  else
    launch(queue, squares, kThreads, 0, quantize_squares<whole, false, false>, source, to);
}

std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

}  // namespace

std::vector<Codes> quantize(const std::vector<Tensor>& matrices, const Scaling& scaling, bool down, Queue& queue) {
  CHECK(scaling.width == 1 || scaling.width == kScaledDepth, "tiles {} wide have no kernels for GPUs", scaling.width);
  const Tensor& x = matrices.front();
  Codes one{.rows = down ? x.cols : x.rows, .depth = down ? x.rows : x.cols, .width = scaling.width};
  one.stride = round_up(one.depth, 16);
  one.scale_stride = round_up(tiles_count(one.rows, one.width) + kScaleRows, 4);
  const auto count = static_cast<std::int64_t>(matrices.size());
  const std::int64_t codes_each = one.rows * one.stride;
  const std::int64_t scales_each = tiles_count(one.depth, kScaledDepth) * one.scale_stride;
  one.data = queue.take<unsigned char>(count * codes_each);
  one.scales = queue.take<float>(count * scales_each);
  std::vector<Codes> all;
  Source source{};
  for (std::int64_t m = 0; m < count; ++m) {
    source.x[m % kMatricesMax] = matrices[static_cast<std::size_t>(m)];
    Codes next = one;
    next.data += m * codes_each, next.scales += m * scales_each;
    all.push_back(next);
    const std::int64_t first = m / kMatricesMax * kMatricesMax;
    if (m + 1 < count && m + 1 < first + kMatricesMax) continue;
    const Target to{.codes = all[static_cast<std::size_t>(first)].data,
                    .scales = all[static_cast<std::size_t>(first)].scales,
                    .rows = one.rows,
                    .stride = one.stride,
                    .scale_stride = one.scale_stride,
                    .codes_each = codes_each,
                    .scales_each = scales_each,
                    .floor = scaling.floor};
    bool whole = x.dtype == Dtype::bf16 && x.cols % kEight == 0;
    for (std::int64_t i = first; i <= m; ++i) whole = whole && rows_aligned(matrices[static_cast<std::size_t>(i)]);
    const auto here = static_cast<unsigned>(m + 1 - first);
    whole ? launch_quantize<true>(source, to, x, here, scaling.width == 1, down, queue)
          : launch_quantize<false>(source, to, x, here, scaling.width == 1, down, queue);
  }
  return all;
}

}  // namespace troupe::cuda
