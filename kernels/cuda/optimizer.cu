// AdamW (formula: kernels/op.h), every operation one float32 rounding in the order written there: the CPU's bits.
// It updates parameter, m and v in place and assigns copy, the bfloat16 of the new parameter; the digest is of what a
// thread has in registers when it writes. 28 bytes an element are moved, 30 with the copy.
// Parameters that follow each other are many and small: neighbouring updates go in one launch.
// Initialize: out[i] = mean + std normal(key, first + i), i the row-major index; the normal's last bit may differ from
// the CPU's (kernels/cuda/random.h).
#include "kernels/cuda/batch.h"
#include "kernels/cuda/digest.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/random.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {

constexpr int kQuads = 2, kDrawQuads = 1;

struct Rates {
  float clip, beta1, beta2, rate, root, eps;
  friend bool operator==(const Rates&, const Rates&) = default;
};
struct Update {
  View parameter, gradient, m, v, copy;
  Digests* digests;  // a part a block, or none
  std::uint64_t first;
};

__device__ void update_one(float& p, float gradient, float& m, float& v, const Rates& by, float keep) {
  const float g = gradient * by.clip;
  m = by.beta1 * m + (1.0F - by.beta1) * g;
  v = by.beta2 * v + (1.0F - by.beta2) * (g * g);
  p = p * keep - by.rate * m / (sqrtf(v) * by.root + by.eps);
}

__device__ void update_quad(float4& p, float4 g, float4& m, float4& v, const Rates& by, float keep) {
  update_one(p.x, g.x, m.x, v.x, by, keep), update_one(p.y, g.y, m.y, v.y, by, keep);
  update_one(p.z, g.z, m.z, v.z, by, keep), update_one(p.w, g.w, m.w, v.w, by, keep);
}

// Tensors with gaps, or not of whole quads. All but the copy are float32.
__global__ void update_some(const __grid_constant__ Update op, Rates by, float keep, Sheet<1> sheet) {
  const std::int64_t t = sheet.row(), col = sheet.col(0);
  Digests own{0, 0};
  if (t < sheet.rows) {
    float4 p = op.parameter.quad(t, col), m = op.m.quad(t, col), v = op.v.quad(t, col);
    update_quad(p, op.gradient.quad(t, col), m, v, by, keep);
    op.m.put_quad(t, col, m);
    op.v.put_quad(t, col, v);
    op.parameter.put_quad(t, col, p);
    if (op.copy) store<false>(op.copy, t, col, p);
    const std::int64_t count = op.parameter.cols - col;
    const std::uint64_t index = op.first + static_cast<std::uint64_t>(t * op.parameter.cols + col);
    own.x = digest_quad<false>(true, bits_of(true, p), count, index);
    if (op.copy) own.copy = digest_quad<false>(is_wide(op.copy), bits_of(is_wide(op.copy), p), count, index);
  }
  if (op.digests == nullptr) return;
  const Digests all = digests_of_block(own);
  if (threadIdx.x == 0 && threadIdx.y == 0) op.digests[blockIdx.x] = all;
}

// Tensors without gaps, of whole quads. The copy, if there is one, is bfloat16.
struct Piece {
  float4 *parameter, *m, *v;
  const float4* gradient;
  uint2* copy;
  unsigned* digest;
  std::uint64_t first;
  unsigned quads;
  float keep;
};
struct Pieces {
  Batch<Piece, 56> all;
  Rates by;
  Digests* digests;  // a part a block, or none
};
constexpr int kThreads = 256, kPieceQuads = kThreads * kQuads;  // of a block

__global__ void __launch_bounds__(kThreads) update_pieces(const __grid_constant__ Pieces pieces) {
  const int item = pieces.all.item_of(blockIdx.x);
  const Piece& op = pieces.all.items[item];
  const unsigned begin = (blockIdx.x - pieces.all.first_block[item]) * kPieceQuads + threadIdx.x;
  float4 p[kQuads], g[kQuads], m[kQuads], v[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const unsigned at = begin + i * kThreads;
    if (at >= op.quads) continue;
    p[i] = op.parameter[at], g[i] = op.gradient[at], m[i] = op.m[at], v[i] = op.v[at];
  }
  Digests own{0, 0};
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const unsigned at = begin + i * kThreads;
    if (at >= op.quads) continue;
    update_quad(p[i], g[i], m[i], v[i], pieces.by, op.keep);
    op.m[at] = m[i], op.v[at] = v[i], op.parameter[at] = p[i];
    const uint2 copied = make_uint2(pack_halves(p[i].x, p[i].y), pack_halves(p[i].z, p[i].w));
    if (op.copy != nullptr) op.copy[at] = copied;
    if (pieces.digests == nullptr) continue;
    const std::uint64_t index = op.first + std::uint64_t{at} * 4;
    own.x += digest_quad<true>(true, bits_of(true, p[i]), 4, index);
    if (op.copy != nullptr) own.copy += digest_quad<true>(false, make_uint4(copied.x, copied.y, 0, 0), 4, index);
  }
  if (pieces.digests == nullptr) return;
  const Digests sums = digests_of_block(own);
  if (threadIdx.x == 0) pieces.digests[blockIdx.x] = sums;
}

__global__ void __launch_bounds__(kThreads) fold_pieces(const __grid_constant__ Pieces pieces) {
  const unsigned begin = pieces.all.first_block[blockIdx.x], end = pieces.all.first_block[blockIdx.x + 1];
  fold_digests(pieces.digests + begin, end - begin, pieces.all.items[blockIdx.x].digest);
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

Rates rates_of(const AdamW& op) {
  return {op.clip_scale, op.beta1, op.beta2, op.lr / op.bias1, 1.0F / std::sqrt(op.bias2), op.eps};
}
float keep_of(const AdamW& op) { return 1.0F - op.lr * op.weight_decay; }

// Null: not one that can go with others.
const AdamW* piece_of(const Op& op) {
  const auto* one = std::get_if<AdamW>(&op);
  if (one == nullptr || one->parameter.elements() % 4 != 0 || one->parameter.elements() >= std::int64_t{1} << 32)
    return nullptr;
  if (one->copy && one->copy.dtype != Dtype::bf16) return nullptr;
  for (const Tensor& x : {one->parameter, one->gradient, one->m, one->v, one->copy})
    if (x && !(x.contiguous() && rows_aligned(x))) return nullptr;
  return one;
}
Piece piece(const AdamW& op) {
  const auto quads = [](const Tensor& x) { return static_cast<float4*>(x.data); };
  return {.parameter = quads(op.parameter),
          .m = quads(op.m),
          .v = quads(op.v),
          .gradient = quads(op.gradient),
          .copy = op.copy ? static_cast<uint2*>(op.copy.data) : nullptr,
          .digest = static_cast<unsigned*>(op.digest.data),
          .first = op.first,
          .quads = static_cast<unsigned>(op.parameter.elements() / 4),
          .keep = keep_of(op)};
}

}  // namespace

std::size_t run_updates(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  const AdamW* head = piece_of(*ops[first]);
  if (head == nullptr) return 0;
  Pieces pieces{.all = {}, .by = rates_of(*head), .digests = nullptr};
  static_assert(sizeof pieces <= kParametersMax);
  Touched<1, 5> touched;
  std::size_t i = first;
  for (; i < ops.size() && !pieces.all.full(); ++i) {
    const AdamW* op = piece_of(*ops[i]);
    if (op == nullptr || rates_of(*op) != pieces.by || bool(op->digest) != bool(head->digest)) break;
    if (!touched.take({op->gradient}, {op->parameter, op->m, op->v, op->copy, op->digest})) break;
    check(*ops[i]);
    pieces.all.add(piece(*op), blocks_for(op->parameter.elements() / 4, kPieceQuads));
  }
  if (head->digest) pieces.digests = queue.take<Digests>(pieces.all.blocks());
  launch(queue, pieces.all.blocks(), kThreads, 0, update_pieces, pieces);
  if (head->digest) launch(queue, static_cast<unsigned>(pieces.all.count), kThreads, 0, fold_pieces, pieces);
  return i - first;
}

void run(const AdamW& op, Queue& queue) {
  Tensor p = op.parameter, g = op.gradient, m = op.m, v = op.v, copy = op.copy;
  flatten(p, g, m, v, copy);
  const Sheet<1> sheet(p.rows, p.cols);
  const Update update{p, g, m, v, copy, op.digest ? queue.take<Digests>(sheet.blocks()) : nullptr, op.first};
  launch(queue, sheet.blocks(), sheet.threads(), 0, update_some, update, rates_of(op), keep_of(op), sheet);
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
