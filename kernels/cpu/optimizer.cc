// AdamW (formula: kernels/op.h), every operation one float32 rounding in the order written there; all tensors (R, C).
// It updates parameter, m and v in place and assigns copy, the bfloat16 of the new parameter.
// Initialize: out[i] = mean + std normal(key, first + i), i the row-major index.
#include "kernels/base/random.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"
#include "kernels/digest.h"

namespace troupe::cpu {

namespace {

constexpr std::int64_t kPiece = 1024;  // elements at a time: four rows of it stay in the first-level cache

// Of what was just computed, while it is in the cache: no reading back of what memory made of it.
struct Written {
  std::uint64_t sums[2] = {0, 0};
  void add(const AdamW& op, std::int64_t row) {
    const std::int64_t cols = op.parameter.cols;
    const std::uint64_t first = op.first + static_cast<std::uint64_t>(row * cols);
    sums[0] += digest_of(op.parameter.row<const std::uint32_t>(row), cols, first);
    if (op.copy) sums[1] += digest_of(op.copy.row<const std::uint16_t>(row), cols, first);
  }
};

}  // namespace

void run(const AdamW& op, Scratch&) {
  const float clip = op.clip_scale, beta1 = op.beta1, beta2 = op.beta2, keep = 1.0F - op.lr * op.weight_decay;
  const float rate = op.lr / op.bias1, root = 1.0F / std::sqrt(op.bias2), eps = op.eps;
  const auto next_m = [=](Vec m, Vec g) { return beta1 * m + (1.0F - beta1) * (g * clip); };
  const auto next_v = [=](Vec v, Vec g) { return beta2 * v + (1.0F - beta2) * ((g * clip) * (g * clip)); };
  const auto next_p = [=](Vec p, Vec m, Vec v) { return p * keep - rate * m / (square_root(v) * root + eps); };
  Written written;
  for (std::int64_t t = 0; t < op.parameter.rows; ++t) {
    const float* gradient = op.gradient.row<const float>(t);
    float *p = op.parameter.row<float>(t), *m = op.m.row<float>(t), *v = op.v.row<float>(t);
    for (std::int64_t begin = 0; begin < op.parameter.cols; begin += kPiece) {
      const std::int64_t count = std::min(kPiece, op.parameter.cols - begin);
      map(count, m + begin, next_m, m + begin, gradient + begin);
      map(count, v + begin, next_v, v + begin, gradient + begin);
      map(count, p + begin, next_p, p + begin, m + begin, v + begin);
    }
    if (op.copy) write_row(op.copy, t, p);
    if (op.digest) written.add(op, t);
  }
  if (op.digest) std::memcpy(op.digest.row<std::int32_t>(0), written.sums, sizeof written.sums);
}

void run(const Initialize& op, Scratch& scratch) {
  float* buffer = scratch.take<float>(op.out.cols);
  for (std::int64_t t = 0; t < op.out.rows; ++t) {
    for (std::int64_t d = 0; d < op.out.cols; ++d) {
      const std::uint64_t index = op.first + static_cast<std::uint64_t>(t * op.out.cols + d);
      buffer[d] = op.std == 0 ? op.mean : op.mean + op.std * random_normal(op.key, index);
    }
    write_row(op.out, t, buffer);
  }
}

}  // namespace troupe::cpu
