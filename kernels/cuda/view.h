// View: a Tensor as kernels see it. Elements are read as float32 and rounded once when written; a quad is four
// neighbours in a row, one access where the memory allows it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/math.h"
#include "kernels/cuda/rows.h"

namespace troupe::cuda {

struct View {
  void* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
  Dtype dtype = Dtype::f32;
  bool quads = false;  // every row begins where a quad may

  View() = default;
  View(const Tensor& t)  // NOLINT: a Tensor is one
      : data(t.data), rows(t.rows), cols(t.cols), stride(t.stride), dtype(t.dtype) {
    const std::size_t quad = 4 * bytes_of(dtype);
    quads = reinterpret_cast<std::uintptr_t>(data) % quad == 0 && (stride % 4 == 0 || rows <= 1);
  }

  __device__ explicit operator bool() const { return rows > 0; }
  template <typename T>
  __device__ T* at(std::int64_t row, std::int64_t col) const {
    return static_cast<T*>(data) + row * stride + col;
  }

  // `count` columns from `begin`.
  __device__ View columns(std::int64_t begin, std::int64_t count) const {
    View part = *this;
    part.data = static_cast<char*>(data) + begin * (dtype == Dtype::f32 ? 4 : 2);
    part.cols = count;
    part.quads = quads && begin % 4 == 0;
    return part;
  }

  __device__ float get(std::int64_t row, std::int64_t col) const {
    return dtype == Dtype::f32 ? *at<const float>(row, col) : widen(*at<const std::uint16_t>(row, col));
  }
  __device__ void put(std::int64_t row, std::int64_t col, float value) const {
    if (dtype == Dtype::f32)
      *at<float>(row, col) = value;
    else
      *at<std::uint16_t>(row, col) = narrow(value);
  }

  // Columns col .. col + 3, col a multiple of four; beyond the last: zeros, and not written.
  __device__ float4 quad(std::int64_t row, std::int64_t col) const {
    if (!quads || col + 4 > cols) return some(row, col);
    return dtype == Dtype::f32 ? *quad_at<const float4>(row, col) : widen(*quad_at<const uint2>(row, col));
  }
  __device__ void put_quad(std::int64_t row, std::int64_t col, float4 v) const {
    if (!quads || col + 4 > cols) return put_some(row, col, v);
    if (dtype == Dtype::f32)
      *quad_at<float4>(row, col) = v;
    else
      *quad_at<uint2>(row, col) = make_uint2(narrow(v.x) | static_cast<unsigned>(narrow(v.y)) << 16,
                                             narrow(v.z) | static_cast<unsigned>(narrow(v.w)) << 16);
  }

 private:
  template <typename T>
  __device__ T* quad_at(std::int64_t row, std::int64_t col) const {
    return reinterpret_cast<T*>(static_cast<char*>(data) + (row * stride + col) * (dtype == Dtype::f32 ? 4 : 2));
  }
  __device__ float some_one(std::int64_t row, std::int64_t col) const { return col < cols ? get(row, col) : 0.0F; }
  __device__ float4 some(std::int64_t row, std::int64_t col) const {
    return make_float4(some_one(row, col), some_one(row, col + 1), some_one(row, col + 2), some_one(row, col + 3));
  }
  __device__ void put_some(std::int64_t row, std::int64_t col, float4 v) const {
    const float values[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i)
      if (col + i < cols) put(row, col + i, values[i]);
  }
};

}  // namespace troupe::cuda
