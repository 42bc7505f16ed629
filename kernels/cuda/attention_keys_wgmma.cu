// dk, dv and dk_shared of attention on warpgroups, bfloat16 operands (formulas: kernels/cpu/attention.cc).
// The order: dv[j] = sum_r bf16(P[r, j]) dout[r], dk[j] = scale * sum_r bf16(P (dP - <dout, out>))[r, j] q[r] over the
// rows r of the key head, a row a query of one of its heads, queries in order and a query's heads side by side, in blocks
// of 16 from the span's first; P = 2^(scale log2 e (q k) + the row's shift). dk_shared adds the key heads' sums in order.
// A warpgroup has 64 keys, a block two. Products are made transposed, (keys, rows), so that weights are at once the left
// operand of the sums. The tile's keys and values stay in shared memory, rows pass by in blocks of 64.
#include "kernels/cuda/attention_wgmma.h"

namespace troupe::cuda {

namespace {

constexpr int kRowBlock = 64, kScores = kRowBlock / 2, kRowStages = 3;

// A warp's sixteen keys, from the span's number `key` on, and a block of rows.
struct KeysAndRows {
  const AttentionViews& f;
  const Tile& t;
  int key, row;

  // The first row of the block that sees key + i; negative: all do.
  __device__ int first_place(int i) const { return key + i - (t.k_count - t.q_count) - row; }
  // Products k q to weights P; zero where a row doesn't see a key.
  __device__ void weigh(float (&p)[kScores], const float (&s)[kScores], const RowFacts* facts, float factor) const {
    const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
    for (int i = 0; i < kScores; ++i)
      p[i] = power_of_two(fmaf(s[i], factor, facts[i / 4 * 8 + 2 * pair + i % 2].shift));
    if (first_place(15) <= 0) return;
    const int first[2] = {first_place(g) - 2 * pair, first_place(g + 8) - 2 * pair};
#pragma unroll
    for (int i = 0; i < kScores; ++i)
      if (i / 4 * 8 + i % 2 < first[i / 2 % 2]) p[i] = 0;
  }
};

// Of rows 16k .. 16k + 15: dS / scale from P and dP.
__device__ void differentiate(float (&ds)[kScores], const float (&p)[kScores], const float (&dp)[kScores],
                              const RowFacts* facts, int k) {
  const int pair = lane_of_warp() % 4;
#pragma unroll
  for (int i = 8 * k; i < 8 * k + 8; ++i) ds[i] = p[i] * (dp[i] - facts[i / 4 * 8 + 2 * pair + i % 2].mean);
}

// Sums of a warp's sixteen keys from the span's key number `key` on: columns of x from `begin` on, `width` of them.
template <int count>
__device__ void write(const View& x, const Tile& t, int key, const float (&sums)[count], int width,
                      std::int64_t begin) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (key + g + 8 * half >= t.k_count) continue;
#pragma unroll
    for (int j = 0; j < count / 4; ++j)
      put_two(x, t.k_begin + key + g + 8 * half, j * 8 + 2 * pair, width, begin, sums[4 * j + 2 * half],
              sums[4 * j + 2 * half + 1]);
  }
}
// Of dk the columns behind the own ones: a key head's share of dk_shared, (kv_heads, keys, pitch).
template <int count>
__device__ void write_shared(const AttentionViews& f, float* shares, int pitch, const Tile& t, int key, int kv_head,
                             const float (&sums)[count]) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (key + g + 8 * half >= t.k_count) continue;
    float* row = shares + (kv_head * f.k.rows + t.k_begin + key + g + 8 * half) * pitch;
#pragma unroll
    for (int i = 2 * half; i < count; i += i % 2 == 0 ? 1 : 3) {
      const int col = i / 4 * 8 + 2 * pair + i % 2 - f.own_dim;
      if (col >= 0 && col < f.shared_dim) row[col] = sums[i];
    }
  }
}

template <int dim, int v_dim>
struct Memory {
  using Keys = Panels<kTileRows, dim>;
  using Values = Panels<kTileRows, v_dim>;
  using Queries = Panels<kRowBlock, dim>;
  using Douts = Panels<kRowBlock, v_dim>;
  static constexpr int kStage = Queries::kBytes + Douts::kBytes, kStagesAt = Keys::kBytes + Values::kBytes;
  static constexpr int kFactsAt = kStagesAt + kRowStages * kStage;
  static constexpr int kFactBytes = kRowBlock * static_cast<int>(sizeof(RowFacts));
  static constexpr int kBytes = kFactsAt + kRowStages * kFactBytes;
  unsigned char* data;

  __device__ Keys keys() const { return {data}; }
  __device__ Values values() const { return {data + Keys::kBytes}; }
  __device__ Queries queries(int stage) const { return {data + kStagesAt + stage * kStage}; }
  __device__ Douts douts(int stage) const { return {queries(stage).data + Queries::kBytes}; }
  __device__ RowFacts* facts(int stage) const {
    return reinterpret_cast<RowFacts*>(data + kFactsAt + stage * kFactBytes);
  }
};

template <int dim, int v_dim>
__global__ void __launch_bounds__(kGroupThreads, 1)
    keys_gradient(AttentionViews f, WholePieces whole, View dout, View dk, View dv, float* shares, int pitch,
                  const RowFacts* facts, Tiles tiles) {
  using Shared = Memory<dim, v_dim>;
  using Keys = typename Shared::Keys;
  using Values = typename Shared::Values;
  using Queries = typename Shared::Queries;
  using Douts = typename Shared::Douts;
  const Tile t = tiles.data[blockIdx.x / static_cast<unsigned>(f.kv_heads)];
  if (t.q_count == 0) return;
  const Shared memory{panel_memory()};
  const int kv_head = static_cast<int>(blockIdx.x % static_cast<unsigned>(f.kv_heads));
  const float factor = f.scale * kLog2OfE;
  memory.keys().fetch(key_rows(f, t, kv_head, whole.k), t.first);
  memory.values().fetch(value_rows(f, t, kv_head, whole.v), t.first);
  const int begin = t.first_query(t.first) / kRowBlock * kRowBlock, end = t.q_count;
  const std::uint16_t* query =
      f.q.at<const std::uint16_t>(t.q_begin + begin, std::int64_t{kv_head} * dim) + Queries::own_place(f.q.stride);
  const std::uint16_t* dout_row =
      dout.at<const std::uint16_t>(t.q_begin + begin, std::int64_t{kv_head} * v_dim) + Douts::own_place(dout.stride);
  const RowFacts* fact = facts + (t.q_begin + begin + threadIdx.x % kRowBlock) * std::int64_t{f.heads} + kv_head;
  // Rows behind the span's last are zeros, whatever their facts.
  const auto fetch = [&](int left, int stage) {
    if (left <= 0) return copy_async_commit();
    memory.queries(stage).fetch(query, f.q.stride, left);
    memory.douts(stage).fetch(dout_row, dout.stride, left);
    const int i = static_cast<int>(threadIdx.x);
    if (i < kRowBlock) copy_async(memory.facts(stage) + i, fact, i < left ? 16 : 0);
    copy_async_commit();
    query += kRowBlock * f.q.stride;
    dout_row += kRowBlock * dout.stride;
    fact += kRowBlock * f.heads;
  };
  const int group = group_of_block(), own = static_cast<int>(threadIdx.x) / 32 * 16;
  const Source keys = memory.keys().by_rows(group * kGroupRows), values = memory.values().by_rows(group * kGroupRows);
  float dk_sums[dim / 2], dv_sums[v_dim / 2];
  unsigned weights[kRowBlock / 16][4], slopes[kRowBlock / 16][4];
  clear(dk_sums);
  clear(dv_sums);
  fetch(end - begin, 0);
  fetch(end - begin - kRowBlock, 1);
  int stage = 0;
  for (int row = begin; row < end; row += kRowBlock) {
    meet_for_products<1>();
    const RowFacts* own_facts = memory.facts(stage);
    const Source douts = memory.douts(stage).by_columns(), queries = memory.queries(stage).by_columns();
    float s[kScores], dp[kScores], p[kScores], ds[kScores];
    group_fence();
    multiply_rows<dim, Keys, Queries>(s, keys, memory.queries(stage).by_rows(0));
    group_commit();
    multiply_rows<v_dim, Values, Douts>(dp, values, memory.douts(stage).by_rows(0));
    group_commit();
    group_wait<1>();
    hold(s);
    KeysAndRows{f, t, t.first + own, row}.weigh(p, s, own_facts, factor);
    group_wait<0>();
    hold(dp);
    hold(dk_sums);
    hold(dv_sums);
#pragma unroll
    for (int k = 0; k < kRowBlock / 16; ++k) {
      differentiate(ds, p, dp, own_facts, k);
      round_to_left(weights[k], p, k);
      round_to_left(slopes[k], ds, k);
      group_fence();
      group_multiply_add<true>(dv_sums, weights[k], douts.at(Douts::across(16 * k)));
      group_multiply_add<true>(dk_sums, slopes[k], queries.at(Queries::across(16 * k)));
    }
    group_commit();
    const int before = stage == 0 ? kRowStages - 1 : stage - 1;  // nobody needs it any more
    fetch(end - row - 2 * kRowBlock, before);
    stage = stage + 1 == kRowStages ? 0 : stage + 1;
    group_wait<0>();  // so many registers are under way that the next block's products find none
    hold(dk_sums);
    hold(dv_sums);
    hold(weights);
    hold(slopes);
  }
#pragma unroll
  for (int i = 0; i < dim / 2; ++i) dk_sums[i] *= f.scale;
  write(dv, t, t.first + own, dv_sums, f.v_dim, kv_head * f.v_head_stride);
  write(dk, t, t.first + own, dk_sums, f.own_dim, kv_head * f.k_head_stride);
  if (f.shared_dim > 0) write_shared(f, shares, pitch, t, t.first + own, kv_head, dk_sums);
}

template <int dim, int v_dim>
void go(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  const Attention& f = op.forward;
  const Tiles tiles = key_tiles(queue, f, kTileRows);
  const int pitch = (f.shared_dim + 3) / 4 * 4;
  float* shares = queue.take<float>(f.kv_heads * f.k.rows * pitch);
  launch(queue, tiles.count * static_cast<unsigned>(f.kv_heads), kGroupThreads, Memory<dim, v_dim>::kBytes + kPanelAtom,
         keys_gradient<dim, v_dim>, f, whole_pieces(f, op.dout), op.dout, op.dk, op.dv, shares, pitch, facts, tiles);
  if (f.shared_dim > 0) sum_key_shares(op, shares, pitch, tiles, kTileRows, queue);
}

}  // namespace

void keys_gradient_on_groups(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  with_group_widths(op.forward,
                    [&](auto widths) { go<decltype(widths)::dim, decltype(widths)::v_dim>(op, facts, queue); });
}

}  // namespace troupe::cuda
