// h = silu(gate) up, silu(z) = z sigmoid(z); gate_up = [gate | up]: (N, 2I), h, dh: (N, I).
//   d = dh row_scale;  d_up = d silu(gate);  d_gate = d up s (1 + gate (1 - s)), s = sigmoid(gate)
//   dots[t] = sum_i dh[t,i] h[t,i], in lanes (math.h), with dh before the scale.
// Outputs are assigned. d_gate_up may be gate_up: a row is read before it is written.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

void run(const SwiGlu& op, Scratch& scratch) {
  const std::int64_t width = op.h.cols;
  float *in = scratch.take<float>(2 * width), *out = scratch.take<float>(width);
  for (std::int64_t t = 0; t < op.h.rows; ++t) {
    const float *gate = read_row(op.gate_up, t, in), *up = gate + width;
    float* h = open_row(op.h, t, out);
    map(
        width, h, [](Vec g, Vec u) { return g * sigmoid(g) * u; }, gate, up);
    close_row(op.h, t, h);
  }
}

void run(const SwiGluBackward& op, Scratch& scratch) {
  const std::int64_t rows = op.dh.rows, width = op.dh.cols;
  float* buffer[6];
  for (float*& b : buffer) b = scratch.take<float>(2 * width);
  for (std::int64_t t = 0; t < rows; ++t) {
    const float *gate = read_row(op.gate_up, t, buffer[0]), *up = gate + width, *dh = read_row(op.dh, t, buffer[1]);
    const float scale = op.row_scale ? *op.row_scale.row<const float>(t) : 1.0F;
    float *d_gate = open_row(op.d_gate_up, t, buffer[2]), *d_up = d_gate + width;
    float *s = buffer[3], *silu = buffer[4], *h = buffer[5];
    map(
        width, s, [](Vec g) { return sigmoid(g); }, gate);
    map(
        width, silu, [](Vec g, Vec rate) { return g * rate; }, gate, s);
    if (op.dots) {
      map(
          width, h, [](Vec a, Vec u) { return a * u; }, silu, up);
      *op.dots.row<float>(t) = dot(dh, h, width);
    }
    const auto slope = [=](Vec d, Vec u, Vec g, Vec rate) {
      return d * scale * u * (rate * (1.0F + g * (1.0F - rate)));
    };
    map(width, d_gate, slope, dh, up, gate, s);
    map(
        width, d_up, [=](Vec d, Vec a) { return d * scale * a; }, dh, silu);
    close_row(op.d_gate_up, t, d_gate);
  }
}

}  // namespace troupe::cpu
