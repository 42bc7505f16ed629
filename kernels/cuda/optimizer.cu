// AdamW (formula: kernels/op.h), every operation one float32 rounding in the order written there: the CPU's bits.
// It updates parameter, m and v in place and assigns copy, the bfloat16 of the new parameter; the digest is of what a
// thread has in registers when it writes. 28 bytes an element are moved, 30 with the copy.
// Initialize: out[i] = mean + std normal(key, first + i), i the row-major index; the normal's last bit may differ from
// the CPU's (kernels/cuda/random.h).
#include "kernels/cuda/digest.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/random.h"

namespace troupe::cuda {

namespace {

constexpr int kQuads = 2, kDrawQuads = 1;

struct Rates {
  float clip, beta1, beta2, keep, rate, root, eps;
};
struct Update {
  View parameter, gradient, m, v, copy;
  Digests* digests;  // a part a block, or none
  std::uint64_t first;
};

__device__ void update_one(float& p, float gradient, float& m, float& v, const Rates& by) {
  const float g = gradient * by.clip;
  m = by.beta1 * m + (1.0F - by.beta1) * g;
  v = by.beta2 * v + (1.0F - by.beta2) * (g * g);
  p = p * by.keep - by.rate * m / (sqrtf(v) * by.root + by.eps);
}

// All but the copy are float32, which saves asking.
template <bool whole>
__device__ uint4 fetch_wide(const View& x, std::int64_t t, std::int64_t col) {
  return fetch<whole>(x.at<const char>(0, 0) + t * x.stride * 4, true, x.cols, col);
}
template <bool whole>
__device__ void store_wide(const View& x, std::int64_t t, std::int64_t col, uint4 bits) {
  store_bits<whole>(x.at<char>(0, 0) + t * x.stride * 4, true, x.cols, col, bits);
}

// What has become of a thread's quads, for the digest.
template <bool whole>
__device__ Digests update_quads(const Update& op, const Rates& by, const Sheet<kQuads>& sheet) {
  const std::int64_t t = sheet.row();
  if (t >= sheet.rows) return {0, 0};
  uint4 parameters[kQuads], gradients[kQuads], ms[kQuads], vs[kQuads];
  for (int i = 0; i < kQuads; ++i) {
    const std::int64_t col = sheet.col(i);
    parameters[i] = fetch_wide<whole>(op.parameter, t, col);
    gradients[i] = fetch_wide<whole>(op.gradient, t, col);
    ms[i] = fetch_wide<whole>(op.m, t, col);
    vs[i] = fetch_wide<whole>(op.v, t, col);
  }
  Digests sums{0, 0};
  for (int i = 0; i < kQuads; ++i) {
    const std::int64_t col = sheet.col(i), count = op.parameter.cols - col;
    float4 p = floats(true, parameters[i]), m = floats(true, ms[i]), v = floats(true, vs[i]);
    const float4 g = floats(true, gradients[i]);
    update_one(p.x, g.x, m.x, v.x, by), update_one(p.y, g.y, m.y, v.y, by);
    update_one(p.z, g.z, m.z, v.z, by), update_one(p.w, g.w, m.w, v.w, by);
    store_wide<whole>(op.m, t, col, bits_of(true, m));
    store_wide<whole>(op.v, t, col, bits_of(true, v));
    const uint4 written = bits_of(true, p), copied = bits_of(is_wide(op.copy), p);
    store_wide<whole>(op.parameter, t, col, written);
    if (op.copy) store_bits<whole>(op.copy, t, col, copied);
    if (op.digests == nullptr) continue;
    const std::uint64_t index = op.first + static_cast<std::uint64_t>(t * op.parameter.cols + col);
    sums.x += digest_quad<whole>(true, written, count, index);
    if (op.copy) sums.copy += digest_quad<whole>(is_wide(op.copy), copied, count, index);
  }
  return sums;
}

template <bool whole>
__global__ void update_block(const __grid_constant__ Update op, Rates by, Sheet<kQuads> sheet) {
  const Digests own = update_quads<whole>(op, by, sheet);
  if (op.digests == nullptr) return;
  const Digests all = digests_of_block(own);
  if (threadIdx.x == 0 && threadIdx.y == 0) op.digests[blockIdx.x] = all;
}

template <bool whole>
__global__ void draw_quads(View out, std::uint64_t key, std::uint64_t first, float mean, float deviation,
                           Sheet<kDrawQuads> sheet) {
  const std::int64_t t = sheet.row(), col = sheet.col(0);
  if (t >= sheet.rows || col >= out.cols) return;
  float drawn[4];
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t index = first + static_cast<std::uint64_t>(t * out.cols + col + i);
    drawn[i] = deviation == 0 ? mean : mean + deviation * random_normal(key, index);
  }
  store<whole>(out, t, col, make_float4(drawn[0], drawn[1], drawn[2], drawn[3]));
}

}  // namespace

void run(const AdamW& op, Queue& queue) {
  const Rates by{
      op.clip_scale, op.beta1, op.beta2, 1.0F - op.lr * op.weight_decay, op.lr / op.bias1, 1.0F / std::sqrt(op.bias2),
      op.eps};
  Tensor p = op.parameter, g = op.gradient, m = op.m, v = op.v, copy = op.copy;
  flatten(p, g, m, v, copy);
  const Sheet<kQuads> sheet(p.rows, p.cols);
  const Update update{p, g, m, v, copy, op.digest ? queue.take<Digests>(sheet.blocks()) : nullptr, op.first};
  const bool whole = whole_quads(update.parameter, update.gradient, update.m, update.v, update.copy);
  launch(queue, sheet.blocks(), sheet.threads(), 0, whole ? update_block<true> : update_block<false>, update, by,
         sheet);
  if (op.digest) write_digest(update.digests, sheet.blocks(), op.digest, queue);
}

void run(const Initialize& op, Queue& queue) {
  Tensor out = op.out;
  flatten(out);
  const Sheet<kDrawQuads> sheet(out.rows, out.cols);
  launch(queue, sheet.blocks(), sheet.threads(), 0, whole_quads(View(out)) ? draw_quads<true> : draw_quads<false>, out,
         op.key, op.first, op.mean, op.std, sheet);
}

}  // namespace troupe::cuda
