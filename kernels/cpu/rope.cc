// Rotary positions, in place: with (c, s) = (cosine, sine)[positions[t], i] each pair (a, b) of a head's `dim` columns
// becomes (a c - b s, a s + b c); inverse takes -s. Pairs are columns (2i, 2i + 1) or (i, i + dim / 2).
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

void rotate_interleaved(float* x, const float* cosine, const float* sine, float sign, int pairs) {
  for (int i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1], s = sign * sine[i];
    x[2 * i] = a * cosine[i] - b * s;
    x[2 * i + 1] = a * s + b * cosine[i];
  }
}

void rotate_halves(float* x, const float* cosine, const float* sine, float sign, int pairs) {
  float* y = x + pairs;
  for (int i = 0; i < pairs; ++i) {
    const float a = x[i], b = y[i], s = sign * sine[i];
    x[i] = a * cosine[i] - b * s;
    y[i] = a * s + b * cosine[i];
  }
}

}  // namespace

void run(const Rope& op, Scratch& scratch) {
  const int pairs = op.dim / 2;
  float* buffer = scratch.take<float>(op.dim);
  const float sign = op.inverse ? -1.0F : 1.0F;
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const std::int32_t position = *op.positions.row<const std::int32_t>(t);
    CHECK(position >= 0 && position < op.cosine.rows, "rope: position {} of {}", position, op.cosine.rows);
    const float *cosine = op.cosine.row<const float>(position), *sine = op.sine.row<const float>(position);
    for (int h = 0; h < op.heads; ++h) {
      const Tensor head{op.x.address(t, op.offset + h * op.head_stride), 1, op.dim, op.dim, op.x.dtype};
      float* x = open_row(head, 0, buffer);
      read_row(head, 0, buffer);
      (op.interleaved ? rotate_interleaved : rotate_halves)(x, cosine, sine, sign, pairs);
      close_row(head, 0, x);
    }
  }
}

}  // namespace troupe::cpu
