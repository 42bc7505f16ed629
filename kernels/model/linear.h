// The three products of a linear layer y = x W^T: forward, the input's gradient, the weight's gradient. In FP8 all of
// them read E4M3 (Scaling in kernels/op.h): activations and gradients in tiles, weights in blocks; the weight's gradient
// reads tiles that go along the tokens, made of the same bfloat16 values as the others.
// Letters: N tokens, I inputs, O outputs.
#pragma once

#include "kernels/op.h"

namespace troupe {

// y = x W^T (+ bias) (+ add).  x: (N, I), w: (O, I), y: (N, O).
inline Product linear_forward(bool fp8, const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& bias = {},
                              const Tensor& add = {}) {
  Product op{.a = x, .b = w, .c = y, .transpose_b = true, .bias = bias, .add = add};
  if (fp8) op.a_scaling = kActivationTiles, op.b_scaling = kWeightBlocks;
  return op;
}

// dx = dy W.
inline Product linear_input_gradient(bool fp8, const Tensor& dy, const Tensor& w, const Tensor& dx) {
  Product op{.a = dy, .b = w, .c = dx};
  if (fp8) op.a_scaling = kGradientTiles, op.b_scaling = kWeightBlocks;
  return op;
}

// dw += dy^T x, tokens in order.
inline Product linear_weight_gradient(bool fp8, const Tensor& dy, const Tensor& x, const Tensor& dw) {
  Product op{.a = dy, .b = x, .c = dw, .transpose_a = true, .accumulate = true};
  if (fp8) op.a_scaling = kGradientTiles, op.b_scaling = kActivationTiles;
  return op;
}

}  // namespace troupe
