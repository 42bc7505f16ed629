// Attention on the GPU: the CPU's bits in float32, plain loops in double for bfloat16, and a row's bits wherever it is
// computed. What runs again does so under another order of threads, where those are drawn.
#include <cmath>
#include <cstring>

#include "tests/cuda/beside_cpu.h"
#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

using Rows = std::vector<std::int32_t>;  // spans, rows of four

struct Shape {
  int heads, kv_heads, own, shared, v_dim;
  std::int64_t slack = 0;  // columns behind each row
};

// An attention and its backward; keys and values of a head stand side by side, as an expanded latent leaves them.
struct Case {
  Case(const Shape& s, const Rows& rows, Dtype type, Dtype kv_type)
      : shape(s), spans(integers(static_cast<std::int64_t>(rows.size()) / 4, 4, rows)) {
    for (std::size_t i = 0; i < rows.size(); i += 4) {
      queries = std::max<std::int64_t>(queries, rows[i] + rows[i + 1]);
      keys = std::max<std::int64_t>(keys, rows[i + 2] + rows[i + 3]);
    }
    const int pair = s.own + s.v_dim;
    q = normal(queries, s.heads * (s.own + s.shared), 1, type, s.slack);
    kv = normal(keys, s.kv_heads * pair, 2, kv_type, s.slack);
    k_shared = normal(keys, std::max(s.shared, 1), 3, kv_type, s.slack);
    dout = normal(queries, s.heads * s.v_dim, 4, type, s.slack);
    Attention& f = op.forward;
    f.spans = spans, f.q = q, f.k = kv.tensor().columns(0, kv.tensor().cols - s.v_dim);
    f.v = kv.tensor().columns(s.own, kv.tensor().cols - s.own);
    if (s.shared > 0) f.k_shared = k_shared;
    f.heads = s.heads, f.kv_heads = s.kv_heads, f.own_dim = s.own, f.shared_dim = s.shared, f.v_dim = s.v_dim;
    f.k_head_stride = f.v_head_stride = pair;
    f.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.own + s.shared)));
    op.dout = dout;
    clear();
  }
  Case(const Shape& s, const Rows& rows, Dtype type) : Case(s, rows, type, type) {}

  // Results begin as numbers that aren't.
  void clear() {
    const Dtype type = q.tensor().dtype;
    out = Owned(queries, shape.heads * shape.v_dim, type, shape.slack);
    row_max = Owned(queries, shape.heads), row_scale = Owned(queries, shape.heads);
    dq = Owned(queries, q.tensor().cols, type, shape.slack), dkv = Owned(keys, kv.tensor().cols, type, shape.slack);
    dk_shared = Owned(keys, std::max(shape.shared, 1), type, shape.slack);
    Attention& f = op.forward;
    f.out = out, f.row_max = row_max, f.row_scale = row_scale;
    op.dq = dq, op.dk = dkv.tensor().columns(0, f.k.cols), op.dv = dkv.tensor().columns(shape.own, f.v.cols);
    if (shape.shared > 0) op.dk_shared = dk_shared;
  }
  void run() {
    clear();
    run_op(op.forward);
    run_op(op);
  }
  bool canaries_alive() const {
    return out.canaries_alive() && dq.canaries_alive() && dkv.canaries_alive() && dk_shared.canaries_alive();
  }

  Shape shape;
  std::int64_t queries = 0, keys = 0;
  Owned spans, q{0, 0}, kv{0, 0}, k_shared{0, 0}, dout{0, 0};
  Owned out{0, 0}, row_max{0, 0}, row_scale{0, 0}, dq{0, 0}, dkv{0, 0}, dk_shared{0, 0};
  AttentionBackward op;
};

bool same_results(const Case& a, const Case& b) {
  return same_bits(a.out, b.out) && same_bits(a.row_max, b.row_max) && same_bits(a.row_scale, b.row_scale) &&
         same_bits(a.dq, b.dq) && same_bits(a.dkv, b.dkv) && same_bits(a.dk_shared, b.dk_shared);
}

// An expected value, and how far a kernel may be from it that rounds one factor of each term and the result to bfloat16:
// by 2^-8 of the terms' sizes and of the result's (8 bits of significand: half a unit in the last place is at most that
// much of a number). Float32's own rounding is far below: 1e-5 allows for it.
struct Expected {
  Grid value, size;
  Expected(std::int64_t rows, std::int64_t cols) : value(rows, cols), size(rows, cols) {}
  void add(std::int64_t i, std::int64_t j, double term) {
    value(i, j) += term;
    size(i, j) += std::abs(term);
  }
  bool holds(const Tensor& actual) const {
    for (std::int64_t i = 0; i < value.rows; ++i)
      for (std::int64_t j = 0; j < value.cols; ++j) {
        const double tolerance = 0x1.0p-8 * (size(i, j) + std::abs(value(i, j))) + 1e-5;
        if (!close(element(actual, i, j), value(i, j), tolerance)) return false;
      }
    return true;
  }
};

// The results of a case by plain loops; the backward takes the forward's `out` as it is.
struct Reference {
  explicit Reference(const Case& c)
      : out(c.queries, c.out.tensor().cols),
        dq(c.queries, c.dq.tensor().cols),
        dkv(c.keys, c.dkv.tensor().cols),
        dk_shared(c.keys, c.dk_shared.tensor().cols) {
    for (std::int64_t s = 0; s < c.spans.tensor().rows; ++s) {
      const auto* span = c.spans.tensor().row<const std::int32_t>(s);
      for (int i = 0; i < span[1]; ++i)
        for (int head = 0; head < c.shape.heads; ++head) row(c, head, span[0] + i, span[2], span[3] - span[1] + i + 1);
    }
  }

  void row(const Case& c, int head, std::int64_t i, std::int64_t first, int count) {
    const Shape& s = c.shape;
    const int dim = s.own + s.shared, g = head / (s.heads / s.kv_heads), at = g * (s.own + s.v_dim);
    const double scale = static_cast<double>(c.op.forward.scale);
    const auto key = [&](std::int64_t j, int d) {
      return d < s.own ? c.kv.at(j, at + d) : c.k_shared.at(j, d - s.own);
    };
    std::vector<double> p(static_cast<std::size_t>(count));
    double total = 0, mean = 0;
    for (int j = 0; j < count; ++j) {
      double score = 0;
      for (int d = 0; d < dim; ++d) score += c.q.at(i, head * dim + d) * key(first + j, d);
      total += p[static_cast<std::size_t>(j)] = std::exp(score * scale);
    }
    for (int d = 0; d < s.v_dim; ++d) mean += c.dout.at(i, head * s.v_dim + d) * c.out.at(i, head * s.v_dim + d);
    for (int k = 0; k < count; ++k) {
      const std::int64_t j = first + k;
      const double weight = p[static_cast<std::size_t>(k)] / total;
      double slope = -mean;
      for (int d = 0; d < s.v_dim; ++d) {
        const double g_out = c.dout.at(i, head * s.v_dim + d), value = c.kv.at(j, at + s.own + d);
        out.add(i, head * s.v_dim + d, weight * value);
        dkv.add(j, at + s.own + d, weight * g_out);
        slope += g_out * value;
      }
      slope *= weight * scale;
      for (int d = 0; d < dim; ++d) {
        dq.add(i, head * dim + d, slope * key(j, d));
        const double share = slope * c.q.at(i, head * dim + d);
        d < s.own ? dkv.add(j, at + d, share) : dk_shared.add(j, d - s.own, share);
      }
    }
  }

  Expected out, dq, dkv, dk_shared;
};

void check_against_reference(Case& c) {
  c.run();
  const Reference expected(c);
  CHECK(expected.out.holds(c.out));
  CHECK(expected.dq.holds(c.dq));
  CHECK(expected.dkv.holds(c.dkv));
  if (c.shape.shared > 0) CHECK(expected.dk_shared.holds(c.dk_shared));
  CHECK(c.canaries_alive());
}

const Rows kTwoSpans{0, 13, 0, 13, 13, 40, 13, 40};
// A continued span behind 20 keys, one query on many keys, and a span without queries.
const Rows kContinued{0, 9, 0, 29, 9, 1, 29, 70, 10, 0, 99, 0};

// More spans than one of the threads that list them has.
Rows many_spans() {
  Rows spans;
  for (std::int32_t s = 0; s < 600; ++s) spans.insert(spans.end(), {s, 1, 2 * s, 1 + s % 2});
  return spans;
}

}  // namespace

TEST_CASE("float32 attention and its backward have the CPU's bits on the GPU", "[cuda][attention]") {
  for (const Shape& shape : {Shape{4, 2, 12, 5, 10, 3}, Shape{2, 2, 8, 8, 16}, Shape{3, 1, 7, 0, 33, 1}})
    for (const Rows& spans : {kTwoSpans, kContinued})
      for (const Dtype kv : {Dtype::f32, Dtype::bf16}) {
        Case there(shape, spans, Dtype::f32, kv), here(shape, spans, Dtype::f32, kv);
        run_on_cpu(here.op.forward);
        run_on_cpu(here.op);
        for (int again = 0; again < 2; ++again) {
          there.run();
          CHECK(same_results(here, there));
        }
      }
}

TEST_CASE("more spans than threads that list them are all attended to", "[cuda][attention]") {
  Case there({1, 1, 3, 0, 2}, many_spans(), Dtype::f32), here({1, 1, 3, 0, 2}, many_spans(), Dtype::f32);
  there.run();
  run_on_cpu(here.op.forward);
  run_on_cpu(here.op);
  CHECK(same_results(here, there));
}

TEST_CASE("bfloat16 attention on tensor cores follows plain loops, backward too", "[cuda][attention]") {
  for (const Rows& spans : {kTwoSpans, kContinued}) {
    Case plain({2, 2, 16, 0, 16}, spans, Dtype::bf16), odd({4, 2, 12, 5, 10, 3}, spans, Dtype::bf16);
    check_against_reference(plain);
    check_against_reference(odd);
  }
  Case wide({6, 2, 40, 24, 64, 8}, {0, 50, 0, 150, 50, 20, 150, 20}, Dtype::bf16);
  check_against_reference(wide);
  Case several_tiles({2, 1, 16, 8, 32}, {0, 140, 0, 150}, Dtype::bf16);
  check_against_reference(several_tiles);
  Case latent({2, 2, 128, 64, 128}, {0, 30, 0, 95}, Dtype::bf16);
  check_against_reference(latent);
  Case latent_tiles({2, 2, 128, 64, 128}, {0, 150, 0, 290, 150, 70, 290, 70}, Dtype::bf16);
  check_against_reference(latent_tiles);
  Case whole({2, 1, 128, 0, 128}, {0, 20, 0, 20}, Dtype::bf16);
  check_against_reference(whole);
}

TEST_CASE("bfloat16 heads wider than the tensor cores' tiles go the exact way", "[cuda][attention]") {
  Case c({2, 1, 160, 40, 136}, {0, 7, 0, 12}, Dtype::bf16), here({2, 1, 160, 40, 136}, {0, 7, 0, 12}, Dtype::bf16);
  c.run();
  run_on_cpu(here.op.forward);
  run_on_cpu(here.op);
  CHECK(same_results(here, c));
}

namespace {

using Part = std::pair<int, int>;  // the first query of a span, and how many

void check_bits_of_parts(const Shape& shape, int rows, const std::vector<Part>& parts) {
  Case all(shape, {0, rows, 0, rows}, Dtype::bf16);
  run_op(all.op.forward);
  for (const auto& [begin, count] : parts) {
    // The keys stand elsewhere, as in a cache, before rows that aren't numbers.
    const Attention& f = all.op.forward;
    const std::int64_t seen = begin + count;
    const Owned kv(rows + 20, all.kv.tensor().cols, Dtype::bf16, 8),
        shared(rows + 20, all.k_shared.tensor().cols, Dtype::bf16);
    for (std::int64_t j = 0; j < seen; ++j) {
      std::memcpy(kv.tensor().address(j + 7, 0), all.kv.tensor().address(j, 0), 2 * std::size_t(kv.tensor().cols));
      std::memcpy(shared.tensor().address(j + 7, 0), all.k_shared.tensor().address(j, 0),
                  2 * std::size_t(shared.tensor().cols));
    }
    Attention some = f;
    const Owned spans = integers(1, 4, {0, count, 7, static_cast<std::int32_t>(seen)});
    const Owned out(count, f.out.cols, Dtype::bf16), row_max(count, f.heads), row_scale(count, f.heads);
    some.spans = spans, some.q = f.q.row_range(begin, count), some.k = kv.tensor().columns(0, f.k.cols);
    some.v = kv.tensor().columns(shape.own, f.v.cols);
    if (shape.shared > 0) some.k_shared = shared;
    some.out = out, some.row_max = row_max, some.row_scale = row_scale;
    run_op(some);
    CHECK(same_bits(out, f.out.row_range(begin, count)));
    CHECK(same_bits(row_max, f.row_max.row_range(begin, count)));
    CHECK(same_bits(row_scale, f.row_scale.row_range(begin, count)));
  }
}

void check_gradients_beside_others(const Shape& shape, int rows) {
  const int others = rows + 23;
  Case alone(shape, {0, rows, 0, rows}, Dtype::bf16),
      among(shape, {0, rows, 0, rows, rows, 3, rows, 9, rows + 3, 20, rows + 9, 20, others, 1, rows + 29, 140},
            Dtype::bf16);
  alone.run();
  for (int again = 0; again < 3; ++again) {
    among.run();
    for (const auto& [one, other] :
         {std::pair{&alone.dq, &among.dq}, {&alone.dkv, &among.dkv}, {&alone.dk_shared, &among.dk_shared}})
      CHECK(same_bits(*one, other->tensor().row_range(0, rows)));
  }
}

}  // namespace

TEST_CASE("a query's bfloat16 attention has the same bits alone, in part, or in training", "[cuda][attention]") {
  for (const Shape& shape : {Shape{1, 1, 128, 64, 128}, Shape{6, 2, 64, 0, 64}, Shape{2, 1, 20, 8, 24, 3}})
    check_bits_of_parts(shape, 150, {{0, 1}, {1, 1}, {63, 1}, {64, 1}, {149, 1}, {17, 5}, {100, 40}});
  check_bits_of_parts({2, 2, 128, 64, 128}, 290, {{127, 1}, {128, 1}, {256, 1}, {289, 1}, {120, 20}, {100, 150}});
}

TEST_CASE("a span's gradients are the same bits beside other spans", "[cuda][attention]") {
  check_gradients_beside_others({4, 2, 16, 8, 32}, 70);
  check_gradients_beside_others({2, 2, 128, 64, 128}, 150);
}

TEST_CASE("attention without queries or spans does nothing", "[cuda][attention]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16}) {
    Case c({2, 2, 16, 0, 16}, {0, 5, 0, 5}, type);
    c.op.forward.spans = c.op.forward.spans.row_range(0, 0);
    c.run();
    CHECK(c.out.at(0, 0) != c.out.at(0, 0));
    CHECK(c.dkv.at(0, 0) != c.dkv.at(0, 0));
  }
}
