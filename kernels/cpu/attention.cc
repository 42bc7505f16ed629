// Causal attention over spans, forward and backward (formulas and shapes: kernels/op.h).
//   s[i,j] = scale * sum_d q[i,d] k[j,d];  P[i,j] = exp(s[i,j] - row_max[i]) * row_scale[i];  out[i] = sum_j P[i,j]
//   v[j] dP = dout v^T;  dS = P (dP - <dout, out>) scale;  dq = dS k;  dk = dS^T q;  dv = P^T dout
// The law: every sum over d or over keys is one chain in increasing order (keys from the span's first), and sums for
// the softmax stand in lanes by the key's index in its span. A query row sees exactly its own keys: no masked zero ever
// enters a sum, so its bits are the same alone (decoding) or among others.
// Queries go in register tiles; each tile stops at its own last key, so what the mask hides is not computed.
// Outputs are assigned. dk and dv of a key head sum its query heads, and queries, in order; dk_shared all heads.
#include <algorithm>
#include <vector>

#include "kernels/cpu/attention.h"

namespace troupe::cpu {

namespace {

struct Span {
  std::int64_t q_begin, q_count, k_begin, k_count;
};

// Queries first .. first + rows of a span. Query r of them sees the span's first visible(r) keys.
struct QueryTile {
  Span span;
  std::int64_t first;
  int rows;
  std::int64_t row(int r) const { return span.q_begin + first + r; }
  std::int64_t visible(int r) const { return span.k_count - span.q_count + first + r + 1; }
  std::int64_t visible_to_all() const { return visible(0); }
  std::int64_t visible_to_any() const { return visible(rows - 1); }
};

// A packed right operand: `count` panels of (depth, kPanelCols), one after the other.
struct Panels {
  float* data;
  std::int64_t count, depth;
  float* at(std::int64_t p) const { return data + p * depth * kPanelCols; }
  std::int64_t width() const { return count * kPanelCols; }
};

Tensor head_rows(const Tensor& x, const Span& span, int head, std::int64_t head_stride, std::int64_t dim) {
  return x.columns(head * head_stride, dim).row_range(span.k_begin, span.k_count);
}
Tensor shared_rows(const Tensor& shared, const Span& span) {
  return shared ? shared.row_range(span.k_begin, span.k_count) : Tensor{};
}

// (rows of source, cols) as panels of columns.
Panels pack_rows(const Tensor& source, float* to) {
  const Panels panels{to, (source.cols + kPanelCols - 1) / kPanelCols, source.rows};
  for (std::int64_t p = 0; p < panels.count; ++p)
    pack_panel(source.columns(p * kPanelCols, std::min<std::int64_t>(kPanelCols, source.cols - p * kPanelCols)),
               kPanelCols, panels.at(p));
  return panels;
}

// [own | shared]^T as panels of rows: panel p holds rows p * kPanelCols .. by depth.
Panels pack_transposed_rows(const Tensor& own, const Tensor& shared, float* to) {
  const std::int64_t depth = own.cols + (shared ? shared.cols : 0);
  const Panels panels{to, (own.rows + kPanelCols - 1) / kPanelCols, depth};
  for (std::int64_t p = 0; p < panels.count; ++p) {
    const std::int64_t first = p * kPanelCols, rows = std::min<std::int64_t>(kPanelCols, own.rows - first);
    pack_panel_transposed(own.row_range(first, rows), kPanelCols, panels.at(p));
    if (shared) pack_panel_transposed(shared.row_range(first, rows), kPanelCols, panels.at(p) + own.cols * kPanelCols);
  }
  return panels;
}

// The tile's rows of x in float32, where they stand or widened into `buffer`.
Left tile_rows(const QueryTile& t, const Tensor& x, float* buffer) {
  if (x.dtype == Dtype::f32) return {x.row<const float>(t.row(0)), x.stride, 1};
  for (int r = 0; r < t.rows; ++r) read_row(x, t.row(r), buffer + r * x.cols);
  return {buffer, x.cols, 1};
}

// to[r, j] = sum_d rows[r, d] keys[j, d] for every key that any row sees.
void multiply_keys(const QueryTile& t, Left rows, const Panels& keys, float* to, std::int64_t step) {
  for (std::int64_t p = 0; p * kPanelCols < t.visible_to_any(); ++p)
    tile(t.rows, 2, keys.depth, rows, {keys.at(p), kPanelCols}, to + p * kPanelCols, step, false);
}

// row[c] += sum_j weights[j] values[j, c], j from begin to end: one panel's columns.
inline void add_values(const float* weights, std::int64_t begin, std::int64_t end, const float* panel, float* row) {
  Vec low = load(row), high = load(row + kLanes);
  for (std::int64_t j = begin; j < end; ++j) {
    const Vec weight = broadcast(weights[j]);
    low = fused(weight, load(panel + j * kPanelCols), low);
    high = fused(weight, load(panel + j * kPanelCols + kLanes), high);
  }
  store(row, low);
  store(row + kLanes, high);
}

// to[r, c] = sum_j weights[r, j] values[j, c] over the keys that row r sees: together over those that all rows see,
// then row by row over the triangle of those that only later rows see.
void multiply_values(const QueryTile& t, const float* weights, std::int64_t step, const Panels& values, float* to) {
  for (std::int64_t p = 0; p < values.count; ++p) {
    float* sums = to + p * kPanelCols;
    tile(t.rows, 2, t.visible_to_all(), {weights, step, 1}, {values.at(p), kPanelCols}, sums, values.width(), false);
    for (int r = 1; r < t.rows; ++r)
      add_values(weights + r * step, t.visible_to_all(), t.visible(r), values.at(p), sums + r * values.width());
  }
}

// Those that have queries. What spans say is data, and no part of the op's shapes: it is checked here.
std::vector<Span> spans_of(const Attention& op) {
  std::vector<Span> spans;
  for (std::int64_t s = 0; s < op.spans.rows; ++s) {
    const std::int32_t* row = op.spans.row<const std::int32_t>(s);
    const Span span{row[0], row[1], row[2], row[3]};
    CHECK(span.q_begin >= 0 && span.q_count >= 0 && span.q_begin + span.q_count <= op.q.rows && span.k_begin >= 0 &&
              span.k_count >= span.q_count && span.k_begin + span.k_count <= op.k.rows,
          "attention: span {} is ({}, {}, {}, {})", s, row[0], row[1], row[2], row[3]);
    if (span.q_count > 0) spans.push_back(span);
  }
  return spans;
}

std::int64_t longest(const std::vector<Span>& spans) {
  std::int64_t keys = 0;
  for (const Span& span : spans) keys = std::max(keys, span.k_count);
  return keys;
}

class Forward {
 public:
  Forward(const Attention& op, std::int64_t keys_max, Scratch& scratch) : op_(op), dim_(op.own_dim + op.shared_dim) {
    const std::int64_t keys_padded = round_up(keys_max, kPanelCols), values_width = round_up(op.v_dim, kPanelCols);
    keys_ = scratch.take<float>(keys_padded * dim_);
    values_ = scratch.take<float>(keys_max * values_width);
    queries_ = scratch.take<float>(kTileRows * dim_);
    scores_ = scratch.take<float>(kTileRows * keys_padded);
    sums_ = scratch.take<float>(kTileRows * values_width);
  }

  void attend(const Span& span) {
    for (int g = 0; g < op_.kv_heads; ++g) {
      const Tensor own = head_rows(op_.k, span, g, op_.k_head_stride, op_.own_dim);
      const Panels keys = pack_transposed_rows(own, shared_rows(op_.k_shared, span), keys_);
      const Panels values = pack_rows(head_rows(op_.v, span, g, op_.v_head_stride, op_.v_dim), values_);
      const int group = op_.heads / op_.kv_heads;
      for (int h = g * group; h < (g + 1) * group; ++h)
        for (std::int64_t i = 0; i < span.q_count; i += kTileRows)
          attend_tile({span, i, static_cast<int>(std::min<std::int64_t>(kTileRows, span.q_count - i))}, h, keys,
                      values);
    }
  }

 private:
  void attend_tile(const QueryTile& t, int head, const Panels& keys, const Panels& values) {
    const Tensor q = op_.q.columns(head * dim_, dim_);
    const std::int64_t step = round_up(t.visible_to_any(), kPanelCols), row = t.row(0);
    multiply_keys(t, tile_rows(t, q, queries_), keys, scores_, step);
    for (int r = 0; r < t.rows; ++r) soften(op_, scores_ + r * step, t.visible(r), row + r, head);
    multiply_values(t, scores_, step, values, sums_);
    const Tensor out = op_.out.columns(head * op_.v_dim, op_.v_dim);
    for (int r = 0; r < t.rows; ++r) {
      float* sums = sums_ + r * values.width();
      const float scale = op_.row_scale.row<float>(row + r)[head];
      map(
          op_.v_dim, sums, [=](Vec sum) { return sum * scale; }, sums);
      write_row(out, row + r, sums);
    }
  }

  const Attention& op_;
  std::int64_t dim_;
  float *keys_, *values_, *queries_, *scores_, *sums_;
};

// dK, dV and the shared part of dK are summed in float32 over a span and written at its end. Queries go in blocks: P
// and dS of a block are kept, so that the sums over queries run through the register tiles too.
class Backward {
 public:
  Backward(const AttentionBackward& op, std::int64_t keys_max, Scratch& scratch)
      : op_(op), f_(op.forward), dim_(f_.own_dim + f_.shared_dim) {
    const std::int64_t padded = round_up(keys_max, kPanelCols), dims = round_up(dim_, kPanelCols) + kPanelCols;
    const std::int64_t v_dims = round_up(f_.v_dim, kPanelCols);
    step_ = padded + kPanelCols;
    for (float** wide : {&keys_t_, &keys_, &dk_}) *wide = scratch.take<float>(padded * dims);
    for (float** wide : {&values_t_, &dv_}) *wide = scratch.take<float>(padded * v_dims);
    if (f_.shared_dim > 0) dk_shared_ = scratch.take<float>(padded * dims);
    for (float** block : {&weights_, &gradients_}) *block = scratch.take<float>(kQueryBlock * step_);
    for (float** block : {&queries_, &queries_shared_}) *block = scratch.take<float>(kQueryBlock * dims);
    douts_ = scratch.take<float>(kQueryBlock * v_dims);
    for (float** row : {&row_a_, &row_b_}) *row = scratch.take<float>(kTileRows * std::max(dims, v_dims));
  }

  void attend(const Span& span) {
    const int group = f_.heads / f_.kv_heads;
    const std::int64_t own_dims = round_up(f_.own_dim, kPanelCols), v_dims = round_up(f_.v_dim, kPanelCols);
    const std::int64_t shared_dims = round_up(f_.shared_dim, kPanelCols);
    if (f_.shared_dim > 0) std::fill_n(dk_shared_, span.k_count * shared_dims, 0.0F);
    for (int g = 0; g < f_.kv_heads; ++g) {
      pack_keys(span, g);
      std::fill_n(dk_, span.k_count * own_dims, 0.0F);
      std::fill_n(dv_, span.k_count * v_dims, 0.0F);
      for (int h = g * group; h < (g + 1) * group; ++h)
        for (std::int64_t i = 0; i < span.q_count; i += kQueryBlock)
          attend_block(span, h, i, std::min(kQueryBlock, span.q_count - i));
      write(head_rows(op_.dk, span, g, f_.k_head_stride, f_.own_dim), dk_, own_dims);
      write(head_rows(op_.dv, span, g, f_.v_head_stride, f_.v_dim), dv_, v_dims);
    }
    if (f_.shared_dim > 0) write(shared_rows(op_.dk_shared, span), dk_shared_, shared_dims);
  }

 private:
  static constexpr std::int64_t kQueryBlock = 96;  // a multiple of every kTileRows

  void pack_keys(const Span& span, int g) {
    const Tensor own = head_rows(f_.k, span, g, f_.k_head_stride, f_.own_dim);
    const Tensor shared = shared_rows(f_.k_shared, span);
    keys_by_dim_ = pack_transposed_rows(own, shared, keys_t_);
    values_by_dim_ = pack_transposed_rows(head_rows(f_.v, span, g, f_.v_head_stride, f_.v_dim), {}, values_t_);
    own_keys_ = pack_rows(own, keys_);
    if (shared) shared_keys_ = pack_rows(shared, keys_ + own_keys_.width() * span.k_count);
  }

  // One block of queries: P, dS and dq tile by tile; then the block's share of dv, dk and dk_shared.
  void attend_block(const Span& span, int head, std::int64_t first, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kTileRows)
      attend_tile({span, first + i, static_cast<int>(std::min<std::int64_t>(kTileRows, count - i))}, head, i);
    const auto rows = [&](const Tensor& x) { return x.row_range(span.q_begin + first, count); };
    const Tensor q = rows(f_.q).columns(head * dim_, dim_);
    const Tensor dout = rows(op_.dout).columns(head * f_.v_dim, f_.v_dim);
    sum_over_queries(span, first, count, weights_, pack_rows(dout, douts_), dv_);
    sum_over_queries(span, first, count, gradients_, pack_rows(q.columns(0, f_.own_dim), queries_), dk_);
    if (f_.shared_dim > 0)
      sum_over_queries(span, first, count, gradients_, pack_rows(q.columns(f_.own_dim, f_.shared_dim), queries_shared_),
                       dk_shared_);
  }

  void attend_tile(const QueryTile& t, int head, std::int64_t place) {
    float* weights = weights_ + place * step_;
    float* gradients = gradients_ + place * step_;
    const Tensor dout = op_.dout.columns(head * f_.v_dim, f_.v_dim);
    const Tensor out = f_.out.columns(head * f_.v_dim, f_.v_dim);
    multiply_keys(t, tile_rows(t, f_.q.columns(head * dim_, dim_), row_a_), keys_by_dim_, weights, step_);
    multiply_keys(t, tile_rows(t, dout, row_a_), values_by_dim_, gradients, step_);
    for (int r = 0; r < t.rows; ++r) {
      const float* d = read_row(dout, t.row(r), row_a_);
      const float mean = dot(d, read_row(out, t.row(r), row_b_), f_.v_dim);
      differentiate(t, r, head, mean, weights + r * step_, gradients + r * step_);
    }
    const Tensor dq = op_.dq.columns(head * dim_, dim_);
    write_tile(t, dq.columns(0, f_.own_dim), gradients, own_keys_);
    if (f_.shared_dim > 0) write_tile(t, dq.columns(f_.own_dim, f_.shared_dim), gradients, shared_keys_);
  }

  // Raw scores and dP of one row to P and dS; zero behind the row's own keys, as far as a tile of keys may look.
  void differentiate(const QueryTile& t, int r, int head, float mean, float* weights, float* gradients) const {
    const std::int64_t count = t.visible(r), whole = round_up(count, kLanes);
    const float highest = f_.row_max.row<const float>(t.row(r))[head];
    const float share = f_.row_scale.row<const float>(t.row(r))[head], scale = f_.scale;
    map(
        whole, weights, [=](Vec score) { return exponential(score * scale - highest) * share; }, weights);
    map(
        whole, gradients, [=](Vec p, Vec dp) { return p * (dp - mean) * scale; }, weights, gradients);
    std::fill_n(weights + count, kTileRows, 0.0F);
    std::fill_n(gradients + count, kTileRows, 0.0F);
  }

  void write_tile(const QueryTile& t, const Tensor& dq, const float* gradients, const Panels& keys) {
    multiply_values(t, gradients, step_, keys, row_a_);
    for (int r = 0; r < t.rows; ++r) write_row(dq, t.row(r), row_a_ + r * keys.width());
  }

  // sums[j] += sum_i weights[i, j] rows[i], i over the queries of the block that see a tile of keys.
  void sum_over_queries(const Span& span, std::int64_t first, std::int64_t count, const float* weights,
                        const Panels& rows, float* sums) const {
    const std::int64_t before = span.k_count - span.q_count;
    for (std::int64_t p = 0; p < rows.count; ++p)
      for (std::int64_t j = 0; j < before + first + count; j += kTileRows) {
        const int keys = static_cast<int>(std::min<std::int64_t>(kTileRows, before + first + count - j));
        const std::int64_t skip = std::max<std::int64_t>(0, j - before - first);
        tile(keys, 2, count - skip, {weights + skip * step_ + j, 1, step_},
             {rows.at(p) + skip * kPanelCols, kPanelCols}, sums + j * rows.width() + p * kPanelCols, rows.width(),
             true);
      }
  }

  static void write(const Tensor& to, const float* sums, std::int64_t width) {
    for (std::int64_t j = 0; j < to.rows; ++j) write_row(to, j, sums + j * width);
  }

  const AttentionBackward& op_;
  const Attention& f_;
  std::int64_t dim_, step_ = 0;
  Panels keys_by_dim_{}, values_by_dim_{}, own_keys_{}, shared_keys_{};
  float *keys_t_, *keys_, *values_t_, *dk_, *dk_shared_ = nullptr, *dv_;
  float *weights_, *gradients_, *queries_, *queries_shared_, *douts_, *row_a_, *row_b_;
};

}  // namespace

void run(const Attention& op, Scratch& scratch) {
  const std::vector<Span> spans = spans_of(op);
  if (attend_single_rows(op, scratch)) return;
  Forward forward(op, longest(spans), scratch);
  for (const Span& span : spans) forward.attend(span);
}

void run(const AttentionBackward& op, Scratch& scratch) {
  const std::vector<Span> spans = spans_of(op.forward);
  Backward backward(op, longest(spans), scratch);
  for (const Span& span : spans) backward.attend(span);
}

}  // namespace troupe::cpu
