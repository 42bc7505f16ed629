// In the order of kernels/op.h, which has the shapes; an absent operand fits wherever op.h calls it optional.
#include "kernels/shapes.h"

#include <numeric>

#include "kernels/grouped_product.h"
#include "kernels/tiles.h"

namespace troupe {

namespace {

bool is(const Tensor& x, Dtype dtype, std::int64_t rows, std::int64_t cols) {
  return x.dtype == dtype && x.rows == rows && x.cols == cols;
}
// A float tensor of the shape of `other`.
bool is_float_like(const Tensor& x, const Tensor& other) { return is_float(x) && same_shape(x, other); }

bool converts(const Tensor& from, const Tensor& to) {
  return from.dtype == to.dtype || (is_float(from) && is_float(to));
}

void check_rms(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms) {
  CHECK(is_float(x) && is_float(weight), "norm: x and weight must be f32 or bf16");
  CHECK(weight.rows == 1 && weight.cols == x.cols, "norm: weight has {} columns of {}", weight.cols, x.cols);
  CHECK(is(inverse_rms, Dtype::f32, x.rows, 1), "norm: inverse_rms must be f32, {} x 1", x.rows);
}

void check_moves(const Tensor& source, const Tensor& index, const Tensor& out, std::int64_t rows) {
  CHECK(source.cols == out.cols, "gather or scatter: {} columns into {}", source.cols, out.cols);
  CHECK(converts(source, out), "gather or scatter: dtypes don't convert");
  CHECK(is(index, Dtype::i32, rows, 1), "gather or scatter: index must be i32, {} x 1", rows);
}

// Codes of a matrix of these many rows and columns, and its tiles' scales.
void check_codes(const Tensor& codes, const Tensor& scales, std::int64_t rows, std::int64_t cols,
                 const Scaling& scaling) {
  CHECK(is(codes, Dtype::e4m3, rows, cols) && codes.stride % 16 == 0 &&
            reinterpret_cast<std::uintptr_t>(codes.data) % 16 == 0,
        "codes must be e4m3, {} x {}, their rows at multiples of 16", rows, cols);
  CHECK(!scales || is(scales, Dtype::f32, tiles_count(cols, kScaledDepth), tiles_count(rows, scaling.width)),
        "scales of codes must be f32, one a tile");
  CHECK(scaling, "codes without tiles");
}

void check_ids(const Tensor& ids, std::int64_t rows) {
  CHECK(is(ids, Dtype::i32, rows, 1), "embedding: ids must be i32, {} x 1", rows);
}

void check(const Product& op) {
  const std::int64_t m = op.transpose_a ? op.a.cols : op.a.rows, k = op.transpose_a ? op.a.rows : op.a.cols;
  const std::int64_t n = op.transpose_b ? op.b.rows : op.b.cols, kb = op.transpose_b ? op.b.cols : op.b.rows;
  CHECK(k == kb, "product: inner dimensions {} and {} differ", k, kb);
  CHECK(op.c.rows == m && op.c.cols == n, "product: c is {} x {}, must be {} x {}", op.c.rows, op.c.cols, m, n);
  CHECK(is_float(op.a) && (is_float(op.b) || op.b_scales) && is_float(op.c), "product: operands must be f32 or bf16");
  CHECK(!op.b_scales || !op.transpose_b, "product: codes are given both ways round, and not transposed");
  if (op.b_scales) check_codes(op.b_turned, op.b_scales, n, k, op.b_scaling), check_codes(op.b, {}, k, n, op.b_scaling);
  CHECK(!op.accumulate || op.c.dtype == Dtype::f32, "product: only an f32 c accumulates");
  CHECK(!op.bias || (op.bias.cols == n && is_float(op.bias)), "product: bias has {} columns of {}", op.bias.cols, n);
  CHECK(bool(op.a_scaling) == bool(op.b_scaling), "product: both operands are scaled, or none");
  CHECK(!op.add || is_float_like(op.add, op.c), "product: add must have the shape of c");
}

void check(const GroupedProduct& op) {
  CHECK(op.rows.size() == op.b.size(), "grouped product: {} runs and {} matrices", op.rows.size(), op.b.size());
  for (const auto* const more : {&op.b_turned, &op.b_scales})
    CHECK(more->empty() || more->size() == op.b.size(), "grouped product: codes of {} of {} matrices", more->size(),
          op.b.size());
  const std::int64_t rows = std::accumulate(op.rows.begin(), op.rows.end(), std::int64_t{0});
  CHECK(op.a.rows == rows && op.c.rows == rows, "grouped product: runs of {} rows, a has {}, c {}", rows, op.a.rows,
        op.c.rows);
  for (const Tensor& b : op.b)
    CHECK(same_shape(b, op.b.front()) && b.dtype == op.b.front().dtype,
          "grouped product: matrices differ in shape or type");
  each_product(op, [](const Product& one) { check(one); });
}

void check(const Norm& op) {
  check_rms(op.x, op.weight, op.inverse_rms);
  CHECK(is_float_like(op.y, op.x), "norm: y must have the shape of x");
}

void check(const NormBackward& op) {
  check_rms(op.x, op.weight, op.inverse_rms);
  CHECK(is_float_like(op.dy, op.x), "norm backward: dy must have the shape of x");
  CHECK(is_float_like(op.dx, op.x), "norm backward: dx must have the shape of x");
  CHECK(!op.add || is_float_like(op.add, op.x), "norm backward: add must have the shape of x");
  CHECK(is_float(op.dweight) && op.dweight.rows == 1 && op.dweight.cols == op.x.cols,
        "norm backward: dweight must be 1 x {}", op.x.cols);
}

void check(const Rope& op) {
  const int pairs = op.dim / 2;
  CHECK(op.dim > 0 && op.dim % 2 == 0, "rope: {} columns are not pairs", op.dim);
  CHECK(is_float(op.x) && op.offset >= 0 && op.offset + (op.heads - 1) * op.head_stride + op.dim <= op.x.cols,
        "rope: {} heads of {} columns don't fit in {}", op.heads, op.dim, op.x.cols);
  CHECK(op.positions.dtype == Dtype::i32 && op.positions.rows == op.x.rows, "rope: positions must be i32, one a row");
  CHECK(op.cosine.dtype == Dtype::f32 && op.cosine.cols == pairs && op.sine.dtype == Dtype::f32 &&
            same_shape(op.cosine, op.sine),
        "rope: cosine and sine must be f32 with {} columns", pairs);
}

void check(const Attention& op) {
  const std::int64_t dim = op.own_dim + op.shared_dim;
  CHECK(op.kv_heads > 0 && op.heads % op.kv_heads == 0, "attention: {} heads on {} key heads", op.heads, op.kv_heads);
  CHECK(op.own_dim > 0 && op.v_dim > 0 && op.shared_dim >= 0, "attention: empty heads");
  CHECK(op.q.cols == op.heads * dim, "attention: q has {} columns, must be {}", op.q.cols, op.heads * dim);
  CHECK(op.out.cols == op.heads * op.v_dim && op.out.rows == op.q.rows, "attention: out must be {} x {}", op.q.rows,
        op.heads * op.v_dim);
  CHECK(op.k.cols >= (op.kv_heads - 1) * op.k_head_stride + op.own_dim, "attention: k has {} columns", op.k.cols);
  CHECK(op.v.cols >= (op.kv_heads - 1) * op.v_head_stride + op.v_dim, "attention: v has {} columns", op.v.cols);
  CHECK(op.v.rows == op.k.rows, "attention: {} keys but {} values", op.k.rows, op.v.rows);
  CHECK(op.shared_dim == 0 || (op.k_shared.cols == op.shared_dim && op.k_shared.rows == op.k.rows),
        "attention: k_shared must be {} x {}", op.k.rows, op.shared_dim);
  for (const Tensor* x : {&op.q, &op.k, &op.v, &op.out}) CHECK(is_float(*x), "attention: operands must be f32 or bf16");
  for (const Tensor* x : {&op.row_max, &op.row_scale})
    CHECK(is(*x, Dtype::f32, op.q.rows, op.heads), "attention: row_max and row_scale must be f32, {} x {}", op.q.rows,
          op.heads);
  CHECK(op.spans.dtype == Dtype::i32 && op.spans.cols == 4, "attention: spans must be i32 with 4 columns");
}

void check(const AttentionBackward& op) {
  const Attention& f = op.forward;
  check(f);
  CHECK(is_float_like(op.dout, f.out), "attention: dout must have the shape of out");
  CHECK(is_float_like(op.dq, f.q), "attention: dq must have the shape of q");
  CHECK(is_float_like(op.dk, f.k), "attention: dk must have the shape of k");
  CHECK(is_float_like(op.dv, f.v), "attention: dv must have the shape of v");
  CHECK(f.shared_dim == 0 || is_float_like(op.dk_shared, f.k_shared),
        "attention: dk_shared must have the shape of k_shared");
}

void check(const SwiGlu& op) {
  const std::int64_t width = op.h.cols;
  CHECK(is_float(op.gate_up) && is_float(op.h), "swiglu: operands must be f32 or bf16");
  CHECK(op.gate_up.rows == op.h.rows && op.gate_up.cols == 2 * width, "swiglu: gate_up must be {} x {}", op.h.rows,
        2 * width);
}

void check(const SwiGluBackward& op) {
  const std::int64_t rows = op.dh.rows, width = op.dh.cols;
  CHECK(is_float(op.gate_up) && is_float(op.dh) && is_float(op.d_gate_up), "swiglu backward: must be f32 or bf16");
  CHECK(op.gate_up.rows == rows && op.gate_up.cols == 2 * width && same_shape(op.d_gate_up, op.gate_up),
        "swiglu backward: gate_up and d_gate_up must be {} x {}", rows, 2 * width);
  for (const Tensor* column : {&op.row_scale, &op.dots})
    CHECK(!*column || is(*column, Dtype::f32, rows, 1), "swiglu backward: row_scale and dots must be f32, {} x 1",
          rows);
}

void check(const Router& op) {
  const std::int64_t rows = op.x.rows, experts = op.weight.rows, slots = op.indices.cols;
  CHECK(is_float(op.x) && is(op.weight, Dtype::f32, experts, op.x.cols), "router: weight must be f32 with {} columns",
        op.x.cols);
  CHECK(is(op.bias, Dtype::f32, 1, experts), "router: bias must be f32, 1 x {}", experts);
  CHECK(is(op.scores, Dtype::f32, rows, experts), "router: scores must be f32, {} x {}", rows, experts);
  for (const Tensor* x : {&op.indices, &op.position})
    CHECK(is(*x, Dtype::i32, rows, slots), "router: plan must be i32, {} x {}", rows, slots);
  CHECK(is(op.weights, Dtype::f32, rows, slots), "router: weights must be f32");
  CHECK(is(op.sorted_token, Dtype::i32, rows * slots, 1) && is(op.sorted_weight, Dtype::f32, rows * slots, 1),
        "router: sorted_token and sorted_weight must be {} x 1", rows * slots);
  CHECK(is(op.counts, Dtype::i32, 1, experts), "router: counts must be i32, 1 x {}", experts);
  CHECK(op.groups > 0 && experts % op.groups == 0 && op.groups_kept > 0 && op.groups_kept <= op.groups &&
            slots <= op.groups_kept * (experts / op.groups),
        "router: {} of {} experts from {} of {} groups", slots, experts, op.groups_kept, op.groups);
  if (!op.sequence_fraction) return;
  CHECK(op.rows_per_sequence > 0 && op.sequence_fraction.rows * op.rows_per_sequence == rows &&
            op.sequence_fraction.cols == experts && op.sequence_fraction.dtype == Dtype::f32,
        "router: sequence_fraction must be f32, {} / {} x {}", rows, op.rows_per_sequence, experts);
  CHECK(!op.balance || (op.balance.dtype == Dtype::f32 && op.balance.cols == op.sequence_fraction.rows),
        "router: balance must be f32, 1 x {}", op.sequence_fraction.rows);
}

void check(const RouterBackward& op) {
  const std::int64_t rows = op.scores.rows, experts = op.scores.cols, slots = op.indices.cols;
  CHECK(op.scores.dtype == Dtype::f32 && is_float_like(op.dlogits, op.scores),
        "router backward: dlogits must have the shape of scores");
  CHECK(is(op.indices, Dtype::i32, rows, slots) && is(op.position, Dtype::i32, rows, slots) &&
            is(op.weights, Dtype::f32, rows, slots),
        "router backward: indices, position and weights must be {} x {}", rows, slots);
  CHECK(is(op.dots, Dtype::f32, rows * slots, 1), "router backward: dots must be f32, {} x 1", rows * slots);
  CHECK(!op.sequence_fraction || (op.rows_per_sequence > 0 && op.sequence_fraction.cols == experts &&
                                  op.sequence_fraction.rows * op.rows_per_sequence == rows),
        "router backward: sequence_fraction must be {} / {} x {}", rows, op.rows_per_sequence, experts);
}

void check(const Gather& op) { check_moves(op.source, op.index, op.out, op.out.rows); }

void check(const Scatter& op) { check_moves(op.source, op.index, op.out, op.source.rows); }

void check(const Combine& op) {
  const std::int64_t dim = op.out.cols;
  CHECK(is_float(op.out), "combine: out must be f32 or bf16");
  CHECK(op.position.dtype == Dtype::i32 && op.position.rows == op.out.rows, "combine: position must be i32, {} rows",
        op.out.rows);
  CHECK(!op.weight || (op.weight.dtype == Dtype::f32 && same_shape(op.weight, op.position)),
        "combine: weight must be f32, in the shape of position");
  for (const Tensor* add : {&op.add0, &op.add1})
    CHECK(!*add || is_float_like(*add, op.out), "combine: add0 and add1 must have the shape of out");
  for (const Tensor& piece : op.pieces)
    CHECK(is_float(piece) && piece.cols == dim, "combine: a piece has {} columns, must have {}", piece.cols, dim);
}

void check(const ScaleRows& op) {
  CHECK(is_float(op.x) && is_float_like(op.out, op.x), "scale rows: out must have the shape of x");
  CHECK(is(op.scale, Dtype::f32, op.x.rows, 1), "scale rows: scale must be f32, {} x 1", op.x.rows);
}

void check(const Embedding& op) {
  check_ids(op.ids, op.out.rows);
  CHECK(is_float(op.table) && is_float(op.out) && op.table.cols == op.out.cols,
        "embedding: table has {} columns and out {}", op.table.cols, op.out.cols);
}

void check(const EmbeddingGradient& op) {
  check_ids(op.ids, op.dx.rows);
  CHECK(is_float(op.dx) && op.dtable.dtype == Dtype::f32 && op.dtable.cols == op.dx.cols,
        "embedding gradient: dtable must be f32 with {} columns", op.dx.cols);
}

void check(const CrossEntropy& op) {
  const std::int64_t rows = op.logits.rows;
  CHECK(op.logits.dtype == Dtype::f32 && op.logits.cols > 0, "cross entropy: logits must be f32");
  CHECK(is(op.targets, Dtype::i32, rows, 1), "cross entropy: targets must be i32, {} x 1", rows);
  CHECK(is(op.loss, Dtype::f32, rows, 1), "cross entropy: loss must be f32, {} x 1", rows);
  CHECK(!op.dlogits || is_float_like(op.dlogits, op.logits), "cross entropy: dlogits must have the shape of logits");
}

void check(const PolicyLoss& op) {
  const std::int64_t rows = op.logits.rows, words = kept_words_of(op.logits.cols);
  CHECK(op.logits.dtype == Dtype::f32 && op.logits.cols > 0, "policy loss: logits must be f32");
  CHECK(op.targets.dtype == Dtype::i32 && op.targets.rows == rows, "policy loss: targets must be i32, {} x 1", rows);
  CHECK(is(op.policy, Dtype::f32, rows, kPolicyInputs), "policy loss: policy must be f32, {} x {}", rows,
        kPolicyInputs);
  CHECK(is(op.results, Dtype::f32, rows, kPolicyResults), "policy loss: results must be f32, {} x {}", rows,
        kPolicyResults);
  CHECK(!op.kept || is(op.kept, Dtype::i32, rows, words), "policy loss: kept must be i32, {} x {}", rows, words);
  CHECK(!op.dlogits || is_float_like(op.dlogits, op.logits), "policy loss: dlogits must have the shape of logits");
}

void check(const Copy& op) {
  CHECK(same_shape(op.source, op.out), "copy: {} x {} into {} x {}", op.source.rows, op.source.cols, op.out.rows,
        op.out.cols);
  CHECK(converts(op.source, op.out), "copy: dtypes don't convert");
}

void check(const Add& op) {
  CHECK(is_float(op.a) && is_float(op.b) && is_float(op.out), "add: operands must be f32 or bf16");
  CHECK(same_shape(op.a, op.out) && same_shape(op.b, op.out), "add: shapes differ");
}

void check(const Fill&) {}  // whatever it is, it can be filled

void check(const SumRows& op) {
  CHECK(is_float(op.x) && is(op.out, Dtype::f32, 1, op.x.cols), "sum rows: out must be f32, 1 x {}", op.x.cols);
}

void check(const SumSquares& op) {
  CHECK(is_float(op.x), "sum squares: x must be f32 or bf16");
  CHECK(op.out.dtype == Dtype::f64 && op.out.elements() == 1, "sum squares: out must be f64, 1 x 1");
  CHECK(op.bits.dtype == Dtype::i32 && op.bits.elements() == 1, "sum squares: bits must be i32, 1 x 1");
}

void check(const AdamW& op) {
  for (const Tensor* x : {&op.parameter, &op.gradient, &op.m, &op.v})
    CHECK(x->dtype == Dtype::f32 && same_shape(*x, op.parameter), "adamw: operands must be f32 of one shape");
  CHECK(!op.copy || is_float_like(op.copy, op.parameter), "adamw: copy must have the shape of parameter");
  CHECK(!op.digest || !op.copy || op.copy.dtype == Dtype::bf16, "adamw: copy must be bf16 where a digest is written");
  CHECK(!op.digest || (op.digest.dtype == Dtype::i32 && op.digest.elements() == 4), "adamw: digest must be i32, 1 x 4");
}

void check(const Quantize& op) {
  CHECK(is_float(op.x), "quantize: x must be f32 or bf16");
  CHECK(op.scales && op.turned_scales, "quantize: there is no room for scales");
  check_codes(op.codes, op.scales, op.x.rows, op.x.cols, op.scaling);
  check_codes(op.turned, op.turned_scales, op.x.cols, op.x.rows, op.scaling);
  CHECK(!op.digests || is(op.digests, Dtype::i32, 4, 4), "quantize: digests must be i32, 4 x 4");
}

void check(const Digest& op) {
  CHECK(is_float(op.x) && op.out.dtype == Dtype::i32 && op.out.elements() == 4, "digest: out must be i32, 1 x 4");
  CHECK(!op.copy || same_shape(op.copy, op.x), "digest: copy must have the shape of x");
}

void check(const Initialize& op) { CHECK(is_float(op.out), "initialize: out must be f32 or bf16"); }

void check(const Sample& op) {
  const std::int64_t rows = op.logits.rows, words = kept_words_of(op.logits.cols);
  CHECK(op.logits.dtype == Dtype::f32 && op.logits.cols > 0, "sample: logits must be f32");
  CHECK(is(op.counter, Dtype::i32, rows, 2), "sample: counter must be i32, {} x 2", rows);
  CHECK(op.token.dtype == Dtype::i32 && op.token.rows == rows, "sample: token must be i32, {} x 1", rows);
  CHECK(op.logprob.dtype == Dtype::f32 && op.logprob.rows == rows, "sample: logprob must be f32, {} x 1", rows);
  CHECK(op.temperature >= 0 && op.top_p > 0 && op.top_p <= 1, "sample: temperature {}, top_p {}", op.temperature,
        op.top_p);
  CHECK(!op.kept || is(op.kept, Dtype::i32, rows, words), "sample: kept must be i32, {} x {}", rows, words);
}

}  // namespace

void check(const Op& op) {
  std::visit([](const auto& one) { check(one); }, op);
}

}  // namespace troupe
