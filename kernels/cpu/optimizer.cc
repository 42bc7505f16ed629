// AdamW (formula: kernels/op.h), every operation one float32 rounding in the order written there; all tensors (R, C).
// It updates parameter, m and v in place and assigns copy, the bfloat16 of the new parameter.
// Initialize: out[i] = mean + std normal(key, i), i the row-major index.
#include "kernels/base/random.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

// One vector of the update. Ragged ends pass through padded vectors, so every element goes the same way.
void update(const AdamW& op, const float* gradient, float* parameter, float* m, float* v) {
  const Vec g = load(gradient) * op.clip_scale;
  const Vec first = op.beta1 * load(m) + (1.0F - op.beta1) * g;
  const Vec second = op.beta2 * load(v) + (1.0F - op.beta2) * (g * g);
  Vec p = load(parameter) * (1.0F - op.lr * op.weight_decay);
  p -= op.lr * (first / op.bias1) / (square_root(second / op.bias2) + op.eps);
  store(m, first);
  store(v, second);
  store(parameter, p);
}

void check(const AdamW& op) {
  for (const Tensor* x : {&op.parameter, &op.gradient, &op.m, &op.v})
    CHECK(x->dtype == Dtype::f32 && same_shape(*x, op.parameter), "adamw: operands must be f32 of one shape");
  CHECK(!op.copy || (is_float(op.copy) && same_shape(op.copy, op.parameter)),
        "adamw: copy must have the shape of parameter");
}

}  // namespace

void run(const AdamW& op, Scratch&) {
  check(op);
  for (std::int64_t t = 0; t < op.parameter.rows; ++t) {
    float* row[4] = {op.gradient.row<float>(t), op.parameter.row<float>(t), op.m.row<float>(t), op.v.row<float>(t)};
    std::int64_t d = 0;
    for (; d + kLanes <= op.parameter.cols; d += kLanes) update(op, row[0] + d, row[1] + d, row[2] + d, row[3] + d);
    if (const std::int64_t rest = op.parameter.cols - d; rest > 0) {
      float padded[4][kLanes] = {};
      for (int i = 0; i < 4; ++i) std::copy_n(row[i] + d, rest, padded[i]);
      update(op, padded[0], padded[1], padded[2], padded[3]);
      for (int i = 1; i < 4; ++i) std::copy_n(padded[i], rest, row[i] + d);
    }
    if (op.copy) write_row(op.copy, t, row[1]);
  }
}

void run(const Initialize& op, Scratch& scratch) {
  CHECK(is_float(op.out), "initialize: out must be f32 or bf16");
  float* buffer = scratch.take<float>(op.out.cols);
  for (std::int64_t t = 0; t < op.out.rows; ++t) {
    for (std::int64_t d = 0; d < op.out.cols; ++d) {
      const auto index = static_cast<std::uint64_t>(t * op.out.cols + d);
      buffer[d] = op.std == 0 ? op.mean : op.mean + op.std * random_normal(op.key, index);
    }
    write_row(op.out, t, buffer);
  }
}

}  // namespace troupe::cpu
