// Tensors worked on quad by quad (four neighbours of a row: 16 bytes of float32, 8 of bfloat16), and how threads lie on
// them. Reading has two steps, fetch() and floats(), so that a thread has all its reads under way before it waits for
// the first. `whole` forms of kernels are for tensors whose every quad is one access; the others go element by element.
#pragma once

#include <cstdint>

#include "kernels/cuda/mma.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/view.h"

namespace troupe::cuda {

// May every quad of these be one access? Absent ones don't mind.
template <typename... Views>
bool whole_quads(const Views&... views) {
  return ((views.rows == 0 || (views.quads && views.cols % 4 == 0)) && ...);
}

// Tensors of one shape without gaps between their rows become single rows: short rows then cost nothing.
template <typename... Tensors>
void flatten(Tensors&... tensors) {
  if (!(tensors.contiguous() && ...)) return;
  ((tensors = tensors ? Tensor{tensors.data, 1, tensors.elements(), tensors.elements(), tensors.dtype} : tensors), ...);
}

// The bits of columns col .. col + 3 of a row, col a multiple of four: of float32 in four words, of bfloat16 in two.
// Beyond the last column: zeros.
template <bool whole>
__device__ inline uint4 fetch(const char* row, bool wide, std::int64_t cols, std::int64_t col) {
  uint4 bits = make_uint4(0, 0, 0, 0);
  if constexpr (whole) {
    if (col < cols) {
      if (wide) {
        bits = *reinterpret_cast<const uint4*>(row + col * 4);
      } else {
        const uint2 halves = *reinterpret_cast<const uint2*>(row + col * 2);
        bits.x = halves.x;
        bits.y = halves.y;
      }
    }
  } else {
    unsigned word[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; ++i) {
      if (col + i >= cols) continue;
      if (wide)
        word[i] = reinterpret_cast<const unsigned*>(row)[col + i];
      else
        word[i / 2] |= static_cast<unsigned>(reinterpret_cast<const std::uint16_t*>(row)[col + i]) << i % 2 * 16;
    }
    bits = make_uint4(word[0], word[1], word[2], word[3]);
  }
  return bits;
}

// The same into memory; columns beyond the last aren't written.
template <bool whole>
__device__ inline void store_bits(char* row, bool wide, std::int64_t cols, std::int64_t col, uint4 bits) {
  if constexpr (whole) {
    if (col < cols) {
      if (wide)
        *reinterpret_cast<uint4*>(row + col * 4) = bits;
      else
        *reinterpret_cast<uint2*>(row + col * 2) = make_uint2(bits.x, bits.y);
    }
  } else {
    const unsigned word[4] = {bits.x, bits.y, bits.z, bits.w};
    for (int i = 0; i < 4; ++i) {
      if (col + i >= cols) continue;
      if (wide)
        reinterpret_cast<unsigned*>(row)[col + i] = word[i];
      else
        reinterpret_cast<std::uint16_t*>(row)[col + i] = static_cast<std::uint16_t>(word[i / 2] >> i % 2 * 16);
    }
  }
}

__device__ inline float4 floats(bool wide, uint4 bits) {
  if (wide)
    return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                       __uint_as_float(bits.w));
  return widen(make_uint2(bits.x, bits.y));
}
__device__ inline uint4 bits_of(bool wide, float4 v) {
  if (wide) return make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z), __float_as_uint(v.w));
  return make_uint4(pack_halves(v.x, v.y), pack_halves(v.z, v.w), 0, 0);
}

// The same of a view's rows.
__device__ inline bool is_wide(const View& x) { return x.dtype == Dtype::f32; }
__device__ inline char* row_of(const View& x, std::int64_t row) {
  return static_cast<char*>(x.data) + row * x.stride * (is_wide(x) ? 4 : 2);
}
template <bool whole>
__device__ uint4 fetch(const View& x, std::int64_t row, std::int64_t col) {
  return fetch<whole>(row_of(x, row), is_wide(x), x.cols, col);
}
__device__ inline float4 floats(const View& x, uint4 bits) { return floats(is_wide(x), bits); }
template <bool whole>
__device__ void store_bits(const View& x, std::int64_t row, std::int64_t col, uint4 bits) {
  store_bits<whole>(row_of(x, row), is_wide(x), x.cols, col, bits);
}
template <bool whole>
__device__ void store(const View& x, std::int64_t row, std::int64_t col, float4 v) {
  store_bits<whole>(x, row, col, bits_of(is_wide(x), v));
}

// How a kernel's threads lie on (rows, cols): a thread has `quads` quads of one row, its block's width apart; a warp
// stands in one row. A long row is cut into chunks, a block each; several short rows share a block.
template <int quads>
struct Sheet {
  static constexpr int kThreads = 256, kWarpLanes = 32;
  std::int64_t rows = 0;
  unsigned chunks = 0, across = 0, down = 0;

  Sheet(std::int64_t rows_, std::int64_t cols) : rows(rows_) {
    const std::int64_t needed = (cols + 3) / 4;
    chunks = blocks_for(needed, kThreads * quads);
    if (chunks == 0) return;
    across = blocks_for(needed, std::int64_t{chunks} * quads * kWarpLanes) * kWarpLanes;
    down = kThreads / across;
  }
  unsigned blocks() const { return chunks == 0 ? 0 : blocks_for(rows, down) * chunks; }
  dim3 threads() const { return {across, down, 1}; }

  __device__ std::int64_t row() const { return std::int64_t{blockIdx.x / chunks} * down + threadIdx.y; }
  __device__ std::int64_t col(int i) const {
    return ((std::int64_t{blockIdx.x % chunks} * quads + i) * across + threadIdx.x) * 4;
  }
  __device__ std::int64_t step() const { return std::int64_t{across} * 4; }  // from one of its quads to the next
};

}  // namespace troupe::cuda
