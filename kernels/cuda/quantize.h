// Operands as scaled products read them on the GPU: codes along k whatever way the tensor stands, and their scales.
#pragma once

#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/op.h"

namespace troupe::cuda {

// In working memory, or a weight's own (Quantize). A row of codes is what the product calls its row (of A) or column
// (of B); k runs along it, and zeros fill it to a multiple of 16.
struct Codes {
  unsigned char* data = nullptr;
  float* scales =
      nullptr;  // [tile of k][row / width], each tile's at a multiple of 16 bytes, kScaleRows more than there are
  std::int64_t rows = 0, depth = 0, width = 1;
  std::int64_t stride = 0, scale_stride = 0;  // from row to row, from tile to tile
};
constexpr std::int64_t kScaleRows = 132;  // a product's tile reads so many scales from any multiple of 4 on

// Those that stand there already.
Codes codes_of(const Tensor& codes, const Tensor& scales, const Scaling& scaling);
// `down`: k runs down the tensors' columns. REQUIRES: a width of 1 or of kScaledDepth.
std::vector<Codes> quantize(const std::vector<Tensor>& tensors, const Scaling& scaling, bool down, Queue& queue);

}  // namespace troupe::cuda
