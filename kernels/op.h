// Op: what a device does, as a value. Every op states its formula, shapes and who owns the accumulation.
//
// The law every implementation keeps (docs/architecture.md, "The numbers"):
//   - each output row depends on its own inputs only, never on how many rows share the op (row invariance);
//   - sums over a product's inner dimension run left to right, one fused multiply-add per element in float32, so that
//     cutting an accumulating product anywhere along that dimension into several ops doesn't change a bit; a GPU adds the
//     products of two bf16 operands in blocks of 16, left to right, the last filled up with zeros: a cut that changes
//     nothing then lies between blocks;
//   - operands of dtype bf16 are read exactly; results are computed in float32 and rounded once when stored.
// FP8 is a way in which a product reads its operands (Scaling). Of tensors between two ops only weights may have that
// type, read so once for many products (Quantize).
// Letters: N rows (tokens), D hidden, E experts, K experts per token, H heads.
#pragma once

#include <array>
#include <cstdint>
#include <variant>

#include "kernels/base/recycled.h"
#include "kernels/tensor.h"

namespace troupe {

// How a product reads an operand in FP8: as E4M3 codes (kernels/tensor.h), in tiles of kScaledDepth elements along the
// sum and `width` across, counted from the operand's first element; the last ones are smaller. Of each tile
//   scale = max(largest |x|, floor) / 448, at least 2^-126;   code = e4m3(x / scale), a true division.
// No floor keeps tiny gradients. An infinity or a NaN spoils its whole tile: scale * code is no number there.
struct Scaling {
  int width = 0;  // 0: the operand is read as it is
  float floor = 0;
  explicit operator bool() const { return width > 0; }
  friend bool operator==(const Scaling&, const Scaling&) = default;
};
constexpr std::int64_t kScaledDepth = 128;
// Products of two bfloat16 operands on tensor cores add blocks of so many along the sum: there, an accumulating one may be
// cut between blocks only.
constexpr std::int64_t kTensorCoreDepth = 16;
constexpr Scaling kActivationTiles{1, 1e-4F}, kGradientTiles{1, 0}, kWeightBlocks{128, 1e-4F};

// c[i,j] = (accumulate ? c[i,j] : 0) + sum_k A[i,k] B[k,j] + bias[j] + add[i,j], A = a or a^T, B = b or b^T.
// The sum is a chain of fused multiply-adds in increasing k starting from c (or 0); bias, then add, come after it.
// Scaled (both or none): for each kScaledDepth of k, with s = such a chain over their codes from 0 (GPU: cuda/codes.h),
//   c[i,j] = fma(scale_a, scale_b * s, c[i,j]); so an accumulating one may be cut along k between tiles only.
// accumulate needs c f32. a, b, bias: f32 or bf16; add: f32 or bf16; c: f32 or bf16. A scaled b may be codes already, e4m3
// and not transposed, with those of b^T and their tiles' scales beside them (Quantize); who reads which is the device's
// affair, and the bits are those of what was quantized.
struct Product {
  Tensor a, b, c;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  Tensor bias{};  // (1, cols of c), optional
  Tensor add{};   // shape of c, optional; may be c itself
  Scaling a_scaling{}, b_scaling{};
  Tensor b_turned{}, b_scales{};  // of a b that is codes; scales: (tiles along the sum, tiles across) f32
};

// Products of one run of rows after another, each with a matrix of its own (an expert's, of rows sorted by expert):
//   c[t,j] = sum_k a[t,k] B[k,j] for the rows t of run r, B = b[r] or b[r]^T; an element is as in Product.
// Run r is the rows[r] rows behind those of earlier runs; together they are all rows of a and c.
struct GroupedProduct {
  Tensor a, c;
  RecycledVector<Tensor> b;           // one a run, all of one shape and dtype
  RecycledVector<std::int32_t> rows;  // of each run; may be 0
  bool transpose_b = false;
  Scaling a_scaling{}, b_scaling{};               // as a Product's, tiles counted from each run's first row
  RecycledVector<Tensor> b_turned{}, b_scales{};  // one a run where all of b are codes, or none
};

// A weight as scaled products read it, for those that sum along its rows, and turned for those that sum down its columns:
// the codes of x by `scaling`, and the scales of its blocks. Rows of codes begin at multiples of 16 bytes and go on with
// zeros up to one. digests (optional): row i is the Digest of tensor i of the four, codes as code_pairs.
struct Quantize {
  Tensor x;                      // (O, I) f32 or bf16
  Tensor codes, scales;          // (O, I) e4m3, (tiles of I, tiles of O) f32
  Tensor turned, turned_scales;  // (I, O) e4m3, (tiles of O, tiles of I) f32
  Tensor digests{};              // (4, 4) i32
  Scaling scaling = kWeightBlocks;
};

// The Digests that a Quantize writes with it, by themselves.
inline std::array<Tensor, 4> digested(const Quantize& op) {
  return {code_pairs(op.codes), op.scales, code_pairs(op.turned), op.turned_scales};
}

// y[t,d] = weight[d] * x[t,d] * r[t],  r[t] = 1 / sqrt(mean_d x[t,d]^2 + eps).  inverse_rms: (N,1) f32, written.
struct Norm {
  Tensor x, weight, y, inverse_rms;
  float eps = 1e-6F;
};

// dx[t,d] = add[t,d] + r (w dy - x r^2 mean_d(w dy x));  dweight[0,d] = sum_t dy[t,d] x[t,d] r[t] (assigned, rows in
// order: the microbatch's share). `add` optional (f32 or bf16), may be dx itself.
struct NormBackward {
  Tensor x, weight, inverse_rms, dy, add, dx, dweight;
  float eps = 1e-6F;
};

// Rotates, in place, `dim` columns starting at offset + h * head_stride for each of `heads` heads of x (N, ...).
// Pairs are (2i, 2i+1) if interleaved, else (i, i + dim/2); angle of row t is row positions[t] of cosine and sine
// (P, dim/2) f32. inverse: rotate back (the backward).
struct Rope {
  Tensor x, positions, cosine, sine;
  int heads = 1, head_stride = 0, offset = 0, dim = 0;
  bool interleaved = true, inverse = false;
};

// Causal attention over spans. spans: (S,4) i32 rows {q_begin, q_count, k_begin, k_count}; query row q_begin + i sees
// key rows k_begin .. k_begin + (k_count - q_count) + i. Head h reads key head h / (heads / kv_heads).
//   q:  (Nq, heads * (own_dim + shared_dim)), per head [own | shared]
//   k:  row j, kv head g at k.data + j * k.stride + g * k_head_stride, own_dim wide; k_shared: (Nk, shared_dim)
//   appended v:  row j, kv head g at v.data + j * v.stride + g * v_head_stride, v_dim wide out: (Nq, heads * v_dim)
//   row_max, row_scale: (Nq, heads) f32, written: P[i,j] = exp(s[i,j] - row_max) * row_scale, s = scale * q k.
// Keys are summed left to right from the span's first key: a row's bits are the same alone or among others.
struct Attention {
  Tensor spans, q, k, k_shared, v, out, row_max, row_scale;
  int heads = 1, kv_heads = 1, own_dim = 0, shared_dim = 0, v_dim = 0;
  int k_head_stride = 0, v_head_stride = 0;
  float scale = 1;
};

// dq, dk, dk_shared, dv like q, k, k_shared, v (assigned; rows outside all spans are set to zero by nobody: spans cover
// all rows in training). dk and dv of a kv head sum its query heads in order; dk_shared sums all heads in order.
struct AttentionBackward {
  Attention forward;  // with the forward's row_max and row_scale
  Tensor dout, dq, dk, dk_shared, dv;
};

// h[t,i] = silu(gate_up[t,i]) * gate_up[t,I+i].  gate_up: (N, 2I), h: (N, I).
struct SwiGlu {
  Tensor gate_up, h;
};
// d_gate_up from dh; may be in place of gate_up when dtypes agree. If row_scale (N,1) f32 is present dh is multiplied
// by it first. If dots (N,1) f32 is present: dots[t] = sum_i dh[t,i] h[t,i] with h recomputed and dh before the scale.
struct SwiGluBackward {
  Tensor gate_up, dh, d_gate_up, row_scale, dots;
};

// Router of DeepSeek-V3. scores = sigmoid(x weight^T) in f32; choice = scores + bias (selection only);
// a group's score is the sum of its two best choices, the best topk_group groups stay, the rest are -inf; top K of the
// choice, ties to the lower index, in falling order; weights = scores (unbiased), / (their sum + 1e-20) if normalize,
// * scaling. Then the plan: rows sorted by (expert, token): position[t,k] = place of (t,k) in that order,
// sorted_token[p], sorted_weight[p] (f32), counts[e].
// sequence_fraction[b,e] = E/(K T) * #{t in sequence b: e among the K best raw scores}, T = rows_per_sequence;
// balance[0,b] = sum_e sequence_fraction[b,e] * mean_t(scores[t,e] / sum_j scores[t,j]). Both only if present.
// reuse_indices: take `indices` as given (recomputation never re-routes).
struct Router {
  Tensor x;                  // (N, D) f32 or bf16
  Tensor weight;             // (E, D) f32
  Tensor bias;               // (1, E) f32
  Tensor scores;             // (N, E) f32
  Tensor indices;            // (N, K) i32
  Tensor weights;            // (N, K) f32
  Tensor position;           // (N, K) i32
  Tensor sorted_token;       // (N*K, 1) i32
  Tensor sorted_weight;      // (N*K, 1) f32
  Tensor counts;             // (1, E) i32
  Tensor sequence_fraction;  // (B, E) f32, optional
  Tensor balance;            // (1, B) f32, optional
  int groups = 1, groups_kept = 1, rows_per_sequence = 1;
  bool normalize = true, reuse_indices = false;
  float scaling = 1;
};

// dots[p] = <dL/dcombined[t], expert output of (t,k)> at p = position[t,k].  With S = sum of the chosen scores:
//   normalize: dscore[t,i] = (scaling * e_i - m) / S,  m = sum_chosen weights_i e_i;  else dscore = scaling * e_i.
// Balance loss: dscore[t,i] += balance_scale * (f_i - fbar_t) / sum_j scores[t,j], fbar_t = sum_j f_j scores_tj / sum_j
// scores_tj, f = sequence_fraction of t's sequence.  balance_scale = alpha / (T * sequences in the global batch).
// dlogits[t,i] = dscore * s (1 - s); assigned, zero where nothing flows.
struct RouterBackward {
  Tensor scores, indices, weights, position, dots, dlogits, sequence_fraction;
  int rows_per_sequence = 1;
  bool normalize = true;
  float scaling = 1, balance_scale = 0;
};

// out[j] = source[index[j]], converted to out's dtype. index: (rows of out, 1) i32.
struct Gather {
  Tensor source, index, out;
};
// out[index[j]] = source[j], converted. (Key-value cache writes.)
struct Scatter {
  Tensor source, index, out;
};

// out[t] = add0[t] + add1[t] + sum_k weight[t,k] * row(position[t,k]),  k in increasing order, f32.
// The sorted rows stand in `pieces`, one after the other: piece p holds the rows from the sum of the earlier pieces'
// rows on. weight absent: 1. add0, add1 optional.
struct Combine {
  RecycledVector<Tensor> pieces;
  Tensor position, weight, add0, add1, out;
};

// out[t,:] = x[t,:] * scale[t].  scale: (N,1) f32.
struct ScaleRows {
  Tensor x, scale, out;
};

// out[t] = table[ids[t]].  ids: (N,1) i32.   dtable[ids[t]] += dx[t], t in increasing order; ids < 0 are skipped.
struct Embedding {
  Tensor ids, table, out;
};
struct EmbeddingGradient {
  Tensor ids, dx, dtable;
};

// Per row with target >= 0: loss[t] = log sum_v exp(logits) - logits[target]; dlogits = (softmax - onehot) * scale.
// Rows with target < 0: loss 0, dlogits 0. dlogits may be logits itself, or absent (evaluation).
struct CrossEntropy {
  Tensor logits;   // (N, V) f32
  Tensor targets;  // (N, 1) i32
  Tensor loss;     // (N, 1) f32
  Tensor dlogits;  // (N, V) f32 or bf16
  float scale = 1;
};

// Group-relative policy optimization (GRPO; DeepSeek-V3 report, eq. 26-28), per row with target >= 0; other rows: zero.
// heat = temperature, or 1 if that is 0; z = logits / heat.
//   logprob = z[target] - log sum_v exp z[v], v over the row's kept tokens (Sample) where `kept` is given
//   old, reference, advantage A, weight = policy[t, 0..3]
//   rho = exp(logprob - old);  kl = exp(d) - d - 1, d = reference - logprob; both differences held within 20 of zero
//   surrogate = min(rho A, clamp(rho, 1 - clip_low, 1 + clip_high) A);  with dual_clip and A < 0 at least dual_clip A
//   decoupled (the samples are of an older version): surrogate = min(rho, importance_max) A, rho without a gradient,
//     times pi / pi_now, which is 1 and has one
//   loss = weight (beta kl - surrogate);  dlogits = dloss/dlogits
//   results[t, 0..4] = loss, logprob, kl, 1 where the clipped term is the smaller (else 0), entropy of the row
// One rule with Sample: the same logits, temperature and kept tokens give the logprob that Sample recorded, bit for bit.
struct PolicyLoss {
  Tensor logits;   // (N, V) f32
  Tensor targets;  // (N, 1) i32
  Tensor policy;   // (N, 4) f32
  Tensor results;  // (N, 5) f32, written
  Tensor kept{};   // (N, ceil(V / 32)) i32, a bit a token; optional
  Tensor dlogits;  // (N, V) f32 or bf16; may be logits itself, or absent
  float temperature = 1, clip_low = 0.2F, clip_high = 0.2F, dual_clip = 0, beta = 0, importance_max = 2;
  bool decoupled = false;
};
constexpr std::int64_t kPolicyInputs = 4, kPolicyResults = 5;
constexpr std::int64_t kept_words_of(std::int64_t vocabulary) { return (vocabulary + 31) / 32; }  // cols of `kept`

struct Copy {
  Tensor source, out;
};  // out = convert(source)
struct Add {
  Tensor a, b, out;
};  // out = a + b, f32; out may be a or b
struct Fill {
  Tensor out;
  float value = 0;
};  // every element (i32 tensors: the integer)
// out[0,d] (+)= sum_t x[t,d], rows in order.
struct SumRows {
  Tensor x, out;
  bool accumulate = false;
};
// out[0,0] (f64) = sum of squares: per 4,096-element block (row-major, left to right in f64), blocks in order.
// bits[0,0] (i32) = sum of the elements' bit patterns as float32, modulo 2^32: no bit can flip without changing it.
struct SumSquares {
  Tensor x, out, bits;
};

// g = gradient * clip_scale; m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2; p *= 1 - lr * weight_decay;
// p -= (lr / bias1) m / (sqrt(v) (1 / sqrt(bias2)) + eps), bias_i = 1 - beta_i^step, what stands in brackets of the step
// alone computed once; copy (bf16, optional) = round(p). digest (optional): Digest of the new p, and of copy.
struct AdamW {
  Tensor parameter, gradient, m, v, copy;
  Tensor digest{};
  float lr = 0, beta1 = 0.9F, beta2 = 0.95F, eps = 1e-8F, weight_decay = 0, bias1 = 1, bias2 = 1, clip_scale = 1;
  std::uint64_t first = 0;  // of the parameter's elements, for the digest
};

// Which bits stand where: out = sum_i (bits of x[i] + 1) * odd(first + i) modulo 2^64, i the row-major index,
// odd(n) = 2 hash(n) + 1. Parts of a tensor add up to the whole; two elements can't change places unnoticed.
// out: (1, 4) i32: the sum's low and high word; the same of `copy` (optional, the shape of x).
struct Digest {
  Tensor x, copy, out;
  std::uint64_t first = 0;
};

// out[i] = mean + std * normal(key, first + i), i the row-major index; std 0 fills with the mean.
struct Initialize {
  Tensor out;
  std::uint64_t key = 0;
  float mean = 0, std = 0;
  std::uint64_t first = 0;  // of a part: the elements before it
};

// token[t] ~ softmax(logits[t] / temperature) within the smallest set of probability >= top_p, drawn by the counter
// (key, counter[t]); temperature 0: argmax, ties to the lower index. logprob[t]: of the token within that set, at
// `temperature` (at 1 when it is 0). kept: the set, a bit a token (bit v % 32 of word v / 32).
struct Sample {
  Tensor logits;   // (N, V) f32
  Tensor counter;  // (N, 2) i32: prompt-and-sample number, position
  Tensor token;    // (N, 1) i32
  Tensor logprob;  // (N, 1) f32
  Tensor kept{};   // (N, ceil(V / 32)) i32, optional
  std::uint64_t key = 0;
  float temperature = 0, top_p = 1;
};

using Op = std::variant<Product, GroupedProduct, Norm, NormBackward, Rope, Attention, AttentionBackward, SwiGlu,
                        SwiGluBackward, Router, RouterBackward, Gather, Scatter, Combine, ScaleRows, Embedding,
                        EmbeddingGradient, CrossEntropy, Copy, Add, Fill, SumRows, SumSquares, AdamW, Initialize,
                        Sample, PolicyLoss, Digest, Quantize>;
using Ops = RecycledVector<Op>;  // a segment's, in order

}  // namespace troupe
