// dq of attention, bfloat16 operands on tensor cores (formulas: kernels/cpu/attention.cc).
// The order: dq[i] = scale * sum_j bf16(P (dP - <dout, out>))[i, j] k[j], keys in blocks of 16 from the span's first;
// scores and dP = dout v^T as the forward's scores, in blocks of 16 along the row. P comes from the forward's row_max and
// row_scale.
// A warp has sixteen rows (a query of a head each), a block eight warps: the tile's queries and douts stay in shared
// memory, keys and values pass by in blocks of 64.
#include "kernels/cuda/attention_flash.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32, kRows = kWarps * kWarpRows;

// Facts of rows g and g + 8; behind the tile's last row a share of zero.
struct TwoFacts {
  RowFacts of[2];
  __device__ TwoFacts(const AttentionViews& f, const Tile& t, const WarpRows& rows, int kv_head,
                      const RowFacts* facts) {
    for (int half = 0; half < 2; ++half) {
      const int place = lane_of_warp() / 4 + 8 * half, r = rows.first + place;
      const std::int64_t row = t.q_begin + r / f.group;
      of[half] = place < rows.count ? facts[row * f.heads + kv_head * f.group + r % f.group] : RowFacts{0, 0, 0, 0};
    }
  }
};

// Products q k to weights P; zero where a row doesn't see a key.
__device__ void weigh(float (&s)[kKeys / 8][4], const WarpRows& rows, const TwoFacts& facts, int key, float scale) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] = weight_of(s[j][i], scale, facts.of[i / 2]);
  if (rows.all_see(key + kKeys - 1)) return;
  key += 2 * (lane_of_warp() % 4);
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (key + j * 8 + i % 2 >= rows.seen[i / 2]) s[j][i] = 0;
}

template <int dim>
__device__ void write(const AttentionViews& f, const View& dq, const Tile& t, const WarpRows& rows, int kv_head,
                      const float (&sums)[dim / 8][4]) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (g + 8 * half >= rows.count) continue;
    const int r = rows.first + g + 8 * half, head = kv_head * f.group + r % f.group;
#pragma unroll
    for (int j = 0; j < dim / 8; ++j)
      put_two(dq, t.q_begin + r / f.group, j * 8 + 2 * pair, f.dim, std::int64_t{head} * f.dim,
              f.scale * sums[j][2 * half], f.scale * sums[j][2 * half + 1]);
  }
}

template <int dim, int v_dim>
__global__ void __launch_bounds__(kThreads, kBlocks<dim>)
    queries_gradient(AttentionViews f, WholePieces whole, View dout, View dq, const RowFacts* all_facts, Tiles tiles) {
  const Tile t = tiles.from_last(blockIdx.x);
  if (t.q_count == 0) return;
  auto* memory = dynamic_shared<std::uint16_t>();
  const int kv_head = static_cast<int>(blockIdx.y), own_row = static_cast<int>(threadIdx.x) / 32 * kWarpRows;
  const HalfRows key_source = key_rows(f, t, kv_head, whole.k), value_source = value_rows(f, t, kv_head, whole.v);
  const WarpRows rows(f, t, own_row);
  const TwoFacts facts(f, t, rows, kv_head, all_facts);
  const Staged<kRows, dim> queries{memory};
  const Staged<kRows, v_dim> douts{queries.data + queries.kElements};
  queries.template fetch<kThreads>(query_rows(f, f.q, t, kv_head, f.dim, whole.q), t.first);
  douts.template fetch<kThreads>(query_rows(f, dout, t, kv_head, f.v_dim, whole.dout), t.first);
  const auto stage_of = [&](int key) { return KeyStage<dim, v_dim>(douts.data + douts.kElements, key / kKeys); };
  const auto fetch = [&](int key) {
    stage_of(key).keys.template fetch<kThreads>(key_source, key);
    stage_of(key).values.template fetch<kThreads>(value_source, key);
    copy_async_commit();
  };
  const int most = t.visible((min(t.first + kRows, t.q_count * f.group) - 1) / f.group);
  float sums[dim / 8][4];
  clear(sums);
  fetch(0);
  for (int key = 0; key < most; key += kKeys) {
    copy_async_wait<0>();
    __syncthreads();
    if (key + kKeys < most) fetch(key + kKeys);
    if (key >= rows.seen_by_last) continue;
    const KeyStage<dim, v_dim> stage = stage_of(key);
    float s[kKeys / 8][4], dp[kKeys / 8][4];
    multiply_staged<dim>(s, queries, own_row, stage.keys);
    weigh(s, rows, facts, key, f.scale);
    multiply_staged<v_dim>(dp, douts, own_row, stage.values);
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] *= dp[j][i] - facts.of[i / 2].mean;
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      unsigned a[4];
      round_to_left(a, s[2 * j], s[2 * j + 1]);
      multiply_by_columns(sums, a, stage.keys, j * 16, 0);
    }
  }
  write<dim>(f, dq, t, rows, kv_head, sums);
}

template <int dim, int v_dim>
void go(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  const Attention& f = op.forward;
  constexpr int elements =
      Staged<kRows, dim>::kElements + Staged<kRows, v_dim>::kElements + kStages * KeyStage<dim, v_dim>::kElements;
  const Tiles tiles = query_tiles(queue, f, f.heads / f.kv_heads, kRows);
  launch(queue, dim3(tiles.count, static_cast<unsigned>(f.kv_heads)), kThreads, 2 * elements,
         queries_gradient<dim, v_dim>, f, whole_pieces(f, op.dout), op.dout, op.dq, facts, tiles);
}

}  // namespace

void queries_gradient_flash(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  with_widths(op.forward, [&](auto widths) { go<decltype(widths)::dim, decltype(widths)::v_dim>(op, facts, queue); });
}

}  // namespace troupe::cuda
