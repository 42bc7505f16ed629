#include "kernels/cuda/bulk.h"

#include <cuda.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/cuda/runtime.h"

namespace troupe::cuda {

namespace {

static_assert(sizeof(BoxMap) == sizeof(CUtensorMap));
using Encode = decltype(cuTensorMapEncodeTiled);

// The driver's function: nothing is linked against the driver.
Encode* encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  must(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
       "asking the driver for bulk copies");
  if (found != cudaDriverEntryPointSuccess || function == nullptr)
    throw Error("cuda: the driver knows no bulk copies; update it to one for CUDA 12 or newer");
  return reinterpret_cast<Encode*>(function);
}

}  // namespace

BoxMap box_map(const Tensor& matrix, int box_rows) {
  static Encode* const encode = encoder();
  const auto size = static_cast<std::int64_t>(bytes_of(matrix.dtype));
  const std::int64_t stride = std::max(matrix.stride, matrix.cols);  // of one row it may say nothing
  const auto type = matrix.dtype == Dtype::f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride * size)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(kBoxWidth / size), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, type, 2, matrix.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK(result == CUDA_SUCCESS, "a map of {} x {} elements, {} apart, in boxes of {} rows: the driver says {}",
        matrix.rows, matrix.cols, matrix.stride, box_rows, static_cast<int>(result));
  BoxMap copy;
  std::memcpy(&copy, &map, sizeof copy);
  return copy;
}

}  // namespace troupe::cuda
