// Attention and its backward against plain loops in double, and a query's bits wherever it is computed.
#include <array>
#include <cmath>
#include <numeric>

#include "tests/support/close.h"
#include "tests/support/naive.h"
#include "tests/support/run_op.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

void run(const Op& op) { run_op(op); }

Owned copy_of(const Tensor& x) {
  Owned copy(x.rows, x.cols, x.dtype);
  run(Copy{x, copy});
  return copy;
}

std::vector<std::int32_t> counting(int count) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// One attention with room for its backward. spans: rows of four.
struct AttentionCase {
  AttentionCase(int heads, int kv_heads, int own, int shared, int v_dim, std::vector<std::int32_t> rows, Dtype type,
                bool together = false)
      : spans(integers(static_cast<std::int64_t>(rows.size()) / 4, 4, rows)) {
    std::int64_t nq = 0, nk = 0;
    for (std::size_t s = 0; s < rows.size(); s += 4) {
      nq = std::max<std::int64_t>(nq, rows[s] + rows[s + 1]);
      nk = std::max<std::int64_t>(nk, rows[s + 2] + rows[s + 3]);
    }
    // Together: keys and values of a head side by side, as an expanded latent leaves them.
    const int k_stride = together ? own + v_dim : own, v_stride = together ? own + v_dim : v_dim;
    const int head_dim = own + shared;
    q = normal(nq, heads * head_dim, 1, type, 3);
    kv = normal(nk, kv_heads * (own + v_dim), 2, type);
    k_shared = normal(nk, std::max(shared, 1), 3, type, 5);
    op.spans = spans, op.q = q, op.k = kv.tensor().columns(0, (kv_heads - 1) * k_stride + own);
    if (shared > 0) op.k_shared = k_shared;
    op.v = kv.tensor().columns(together ? own : kv_heads * own, (kv_heads - 1) * v_stride + v_dim);
    op.heads = heads, op.kv_heads = kv_heads, op.own_dim = own, op.shared_dim = shared, op.v_dim = v_dim;
    op.k_head_stride = k_stride, op.v_head_stride = v_stride;
    op.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
    out = Owned(nq, heads * v_dim, type, 2), row_max = Owned(nq, heads), row_scale = Owned(nq, heads);
    op.out = out, op.row_max = row_max, op.row_scale = row_scale;
  }
  Owned spans, q{0, 0}, kv{0, 0}, k_shared{0, 0}, out{0, 0}, row_max{0, 0}, row_scale{0, 0};
  Attention op;
};

const std::vector<std::int32_t> kTwoSpans{0, 13, 0, 13, 13, 40, 13, 40};

}  // namespace

TEST_CASE("attention weighs the values of the keys that a query sees", "[attention]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16})
    for (const bool together : {false, true}) {
      // Training spans; a continued span whose queries come after 20 cached keys; one query on many keys.
      for (const auto& spans : {kTwoSpans, {0, 9, 0, 29, 9, 1, 30, 70}}) {
        AttentionCase x(4, 2, 12, 5, 10, spans, type, together);
        run(x.op);
        const Grid expected = attention(x.op, Grid{x.op.q}, Grid{x.op.k}, Grid{x.op.k_shared}, Grid{x.op.v});
        CHECK(distance(x.out, expected) < half_tolerance(80, 4, type == Dtype::bf16 ? 2 : 0));
        CHECK((x.out.canaries_alive() && x.q.canaries_alive()));
      }
    }
}

TEST_CASE("a query's attention has the same bits decoded alone, in part, or in training", "[attention]") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16}) {
    AttentionCase all(6, 3, 20, 8, 24, {0, 45, 0, 45}, type);
    run(all.op);
    for (const auto& [begin, count] : {std::pair{0, 1}, {1, 1}, {44, 1}, {17, 5}, {3, 30}, {31, 14}}) {
      // The keys stand elsewhere, as in a cache, before rows that nobody may read.
      const Owned spans = integers(1, 4, {0, count, 7, begin + count});
      const Owned k = normal(60, all.op.k.cols, 9, type), v = normal(60, all.op.v.cols, 9, type);
      const Owned shared = normal(60, 8, 9, type), index = integers(45, 1, counting(45));
      for (const auto& [from, to] :
           {std::pair{all.op.k, k.tensor()}, {all.op.v, v.tensor()}, {all.op.k_shared, shared.tensor()}})
        run(Scatter{from, index, to.row_range(7, 45)});
      Attention some = all.op;
      const Owned out(count, all.out.tensor().cols, type), row_max(count, 6), row_scale(count, 6);
      some.spans = spans, some.k = k, some.v = v, some.k_shared = shared;
      some.q = some.q.row_range(begin, count), some.out = out, some.row_max = row_max, some.row_scale = row_scale;
      run(some);
      CHECK(same_bits(out, all.out.tensor().row_range(begin, count)));
      CHECK(same_bits(row_scale, all.row_scale.tensor().row_range(begin, count)));
    }
  }
}

TEST_CASE("attention backward is the slope of attention", "[attention]") {
  for (const auto& [heads, kv_heads, shared] : {std::array{2, 2, 3}, {4, 2, 0}, {3, 1, 2}}) {
    AttentionCase x(heads, kv_heads, 5, shared, 6, {0, 9, 0, 9, 9, 14, 9, 14}, Dtype::f32, true);
    run(x.op);
    const Owned dout = normal(23, heads * 6, 8), dq(23, x.op.q.cols), dkv(23, x.kv.tensor().cols);
    const Owned dk_shared(23, std::max(shared, 1));
    const auto place = [&](const Tensor& part, std::int64_t first) { return dkv.tensor().columns(first, part.cols); };
    run(AttentionBackward{x.op, dout, dq, place(x.op.k, 0), shared > 0 ? dk_shared.tensor() : Tensor{},
                          place(x.op.v, 5)});
    const Grid q{x.op.q}, k{x.op.k}, s{x.op.k_shared}, v{x.op.v}, g{dout};
    const double tolerance = sum_tolerance(23 * heads, 16);
    CHECK(distance(dq, gradient([&](const Grid& at) { return dot(attention(x.op, at, k, s, v), g); }, q)) < tolerance);
    const Grid dk = gradient([&](const Grid& at) { return dot(attention(x.op, q, at, s, v), g); }, k);
    const Grid dv = gradient([&](const Grid& at) { return dot(attention(x.op, q, k, s, at), g); }, v);
    for (int head = 0; head < kv_heads; ++head)
      for (std::int64_t j = 0; j < 23; ++j) {
        for (int d = 0; d < 5; ++d) CHECK(close(dkv.at(j, head * 11 + d), dk(j, head * 11 + d), tolerance));
        for (int d = 0; d < 6; ++d) CHECK(close(dkv.at(j, head * 11 + 5 + d), dv(j, head * 11 + d), tolerance));
      }
    if (shared > 0)
      CHECK(distance(dk_shared, gradient([&](const Grid& at) { return dot(attention(x.op, q, k, at, v), g); }, s)) <
            tolerance);
  }
}

TEST_CASE("attention backward of long spans and bfloat16 follows the naive float32 one", "[attention]") {
  AttentionCase exact(4, 2, 24, 8, 20, {0, 130, 0, 130}, Dtype::f32),
      half(4, 2, 24, 8, 20, {0, 130, 0, 130}, Dtype::bf16);
  Grid slopes[2];
  for (AttentionCase* x : {&exact, &half}) {
    const Dtype type = x->op.q.dtype;
    for (const auto& [from, to] : {std::pair{half.q.tensor(), x->q.tensor()},
                                   {half.kv.tensor(), x->kv.tensor()},
                                   {half.k_shared.tensor(), x->k_shared.tensor()}})
      if (type == Dtype::f32) run(Copy{from, to});
    run(x->op);
    const Owned dout = copy_of(normal(130, 80, 8, type)), dq(130, 128, type), dk(130, 48, type), ds(130, 8, type),
                dv(130, 40, type);
    if (type == Dtype::f32) run(Copy{normal(130, 80, 8, Dtype::bf16), dout});
    run(AttentionBackward{x->op, dout, dq, dk, ds, dv});
    slopes[type == Dtype::bf16] = Grid{dk};
  }
  // dk sums 130 terms of size 1 / 4; bfloat16 enters through `out` in dS (one rounding) and at the end.
  for (std::size_t i = 0; i < slopes[0].values.size(); ++i)
    REQUIRE(close(slopes[1].values[i], slopes[0].values[i], 8 * kHalfEps));
}
