// The three products of a linear layer y = x W^T: forward, the input's gradient, the weight's gradient. In FP8 all of
// them read E4M3 (Scaling in kernels/op.h): activations and gradients in tiles, weights in blocks; the weight's gradient
// reads tiles that go along the tokens, made of the same bfloat16 values as the others. A weight that has codes is read
// from them.
// Letters: N tokens, I inputs, O outputs.
#pragma once

#include "kernels/model/matrix.h"
#include "kernels/op.h"

namespace troupe {

// along: whose rows go along the sum.
inline void read_codes(Product& op, const Coded& along, const Coded& across) {
  if (!along) return;
  op.b = across.codes, op.transpose_b = false;
  op.b_turned = along.codes, op.b_scales = along.scales;
}

// y = x W^T (+ bias) (+ add).  x: (N, I), w: (O, I), y: (N, O).
inline Product linear_forward(bool fp8, const Tensor& x, const Matrix& w, const Tensor& y, const Tensor& bias = {},
                              const Tensor& add = {}) {
  Product op{.a = x, .b = w, .c = y, .transpose_b = true, .bias = bias, .add = add};
  if (!fp8) return op;
  op.a_scaling = kActivationTiles, op.b_scaling = kWeightBlocks;
  read_codes(op, w.coded, w.turned);
  return op;
}

// dx = dy W.
inline Product linear_input_gradient(bool fp8, const Tensor& dy, const Matrix& w, const Tensor& dx) {
  Product op{.a = dy, .b = w, .c = dx};
  if (!fp8) return op;
  op.a_scaling = kGradientTiles, op.b_scaling = kWeightBlocks;
  read_codes(op, w.turned, w.coded);
  return op;
}

// dw += dy^T x, tokens in order.
inline Product linear_weight_gradient(bool fp8, const Tensor& dy, const Tensor& x, const Tensor& dw) {
  Product op{.a = dy, .b = x, .c = dw, .transpose_a = true, .accumulate = true};
  if (fp8) op.a_scaling = kGradientTiles, op.b_scaling = kActivationTiles;
  return op;
}

}  // namespace troupe
