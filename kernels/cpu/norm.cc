// Root-mean-square norm, forward and backward; x, y, dy, dx: (N, D), weight, dweight: (1, D), inverse_rms: (N, 1) f32.
//   y[t,d] = weight[d] (x[t,d] r[t]),  r[t] = 1 / sqrt(mean_d x^2 + eps)
//   dx = add + r (g - x r^2 mean_d(g x)),  g = weight dy;   dweight[d] = sum_t dy[t,d] (x[t,d] r[t])
// Means over d stand in lanes (math.h); dweight is a sum over rows in order, assigned at the end.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

void run(const Norm& op, Scratch& scratch) {
  const std::int64_t dim = op.x.cols;
  const float* weight = read_row(op.weight, 0, scratch.take<float>(dim));
  float *x_buffer = scratch.take<float>(dim), *y_buffer = scratch.take<float>(dim);
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const float* x = read_row(op.x, t, x_buffer);
    const float r = 1.0F / std::sqrt(dot(x, x, dim) / static_cast<float>(dim) + op.eps);
    *op.inverse_rms.row<float>(t) = r;
    float* y = open_row(op.y, t, y_buffer);
    map(
        dim, y, [=](Vec w, Vec v) { return w * (v * r); }, weight, x);
    close_row(op.y, t, y);
  }
}

void run(const NormBackward& op, Scratch& scratch) {
  const std::int64_t dim = op.x.cols;
  const float* weight = read_row(op.weight, 0, scratch.take<float>(dim));
  float* buffer[5];
  for (float*& b : buffer) b = scratch.take<float>(dim);
  float* dweight = scratch.take<float>(dim);
  std::fill_n(dweight, dim, 0.0F);
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const float *x = read_row(op.x, t, buffer[0]), *dy = read_row(op.dy, t, buffer[1]);
    const float r = *op.inverse_rms.row<const float>(t);
    float* g = buffer[2];
    map(
        dim, g, [](Vec w, Vec slope) { return w * slope; }, weight, dy);
    map(
        dim, dweight, [=](Vec sum, Vec slope, Vec v) { return sum + slope * (v * r); }, dweight, dy, x);
    const float along = r * r * (dot(g, x, dim) / static_cast<float>(dim));
    float* dx = open_row(op.dx, t, buffer[3]);
    if (op.add) {
      const float* add = read_row(op.add, t, buffer[4]);
      map(
          dim, dx, [=](Vec more, Vec slope, Vec v) { return more + r * (slope - v * along); }, add, g, x);
    } else {
      map(
          dim, dx, [=](Vec slope, Vec v) { return r * (slope - v * along); }, g, x);
    }
    close_row(op.dx, t, dx);
  }
  write_row(op.dweight, 0, dweight);
}

}  // namespace troupe::cpu
