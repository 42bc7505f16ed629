// dq of attention on warpgroups, bfloat16 operands (formulas: kernels/cpu/attention.cc).
// The order: dq[i] = scale * sum_j bf16(P (dP - <dout, out>))[i, j] k[j], keys in blocks of 16 from the span's first;
// products q k and dP = dout v^T in blocks of 16 along the row; P = 2^(scale log2 e (q k) + the row's shift).
// A warpgroup has 64 rows, a block two: their queries and douts stay in shared memory, keys and values pass by in blocks
// of 64. While a block's keys are added to dq, the next block's products become slopes.
#include "kernels/cuda/attention_wgmma.h"

namespace troupe::cuda {

namespace {

constexpr int kKeyBlock = 64, kScores = kKeyBlock / 2, kKeyStages = 3;

// Of rows g and g + 8; those behind the tile's last are zeros, whatever their facts.
struct TwoFacts {
  float shift[2], mean[2];
  __device__ TwoFacts(const AttentionViews& f, const Tile& t, const WarpRows& rows, int kv_head,
                      const RowFacts* facts) {
    for (int half = 0; half < 2; ++half) {
      const int place = lane_of_warp() / 4 + 8 * half, r = rows.first + place;
      const std::int64_t row = t.q_begin + r / f.group;
      const RowFacts fact =
          place < rows.count ? facts[row * f.heads + kv_head * f.group + r % f.group] : RowFacts{0, 0, 0, 0};
      shift[half] = fact.shift, mean[half] = fact.mean;
    }
  }
};

// Products q k to weights P; zero where a row doesn't see a key.
__device__ void weigh(float (&s)[kScores], const WarpRows& rows, const TwoFacts& facts, int key, float factor) {
#pragma unroll
  for (int i = 0; i < kScores; ++i) s[i] = power_of_two(fmaf(s[i], factor, facts.shift[i / 2 % 2]));
  if (rows.all_see(key + kKeyBlock - 1)) return;
  key += 2 * (lane_of_warp() % 4);
#pragma unroll
  for (int i = 0; i < kScores; ++i)
    if (key + i / 4 * 8 + i % 2 >= rows.seen[i / 2 % 2]) s[i] = 0;
}

template <int count>
__device__ void write(const AttentionViews& f, const View& dq, const Tile& t, const WarpRows& rows, int kv_head,
                      const float (&sums)[count]) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (g + 8 * half >= rows.count) continue;
    const int r = rows.first + g + 8 * half, head = kv_head * f.group + r % f.group;
#pragma unroll
    for (int j = 0; j < count / 4; ++j)
      put_two(dq, t.q_begin + r / f.group, j * 8 + 2 * pair, f.dim, std::int64_t{head} * f.dim,
              f.scale * sums[4 * j + 2 * half], f.scale * sums[4 * j + 2 * half + 1]);
  }
}

template <int dim, int v_dim>
struct Memory {
  using Queries = Panels<kTileRows, dim>;
  using Douts = Panels<kTileRows, v_dim>;
  using Keys = Panels<kKeyBlock, dim>;
  using Values = Panels<kKeyBlock, v_dim>;
  static constexpr int kStage = Keys::kBytes + Values::kBytes;
  static constexpr int kBytes = Queries::kBytes + Douts::kBytes + kKeyStages * kStage;
  unsigned char* data;

  __device__ Queries queries() const { return {data}; }
  __device__ Douts douts() const { return {data + Queries::kBytes}; }
  __device__ Keys keys(int block) const {
    return {data + Queries::kBytes + Douts::kBytes + block % kKeyStages * kStage};
  }
  __device__ Values values(int block) const { return {keys(block).data + Keys::kBytes}; }
};

template <int dim, int v_dim>
__global__ void __launch_bounds__(kGroupThreads, 1)
    queries_gradient(AttentionViews f, WholePieces whole, View dout, View dq, const RowFacts* all_facts, Tiles tiles) {
  using Shared = Memory<dim, v_dim>;
  using Queries = typename Shared::Queries;
  using Douts = typename Shared::Douts;
  using Keys = typename Shared::Keys;
  using Values = typename Shared::Values;
  const Tile t = tiles.from_last(blockIdx.x / static_cast<unsigned>(f.kv_heads));
  if (t.q_count == 0) return;
  const Shared memory{panel_memory()};
  const int kv_head = static_cast<int>(blockIdx.x % static_cast<unsigned>(f.kv_heads));
  const HalfRows key_source = key_rows(f, t, kv_head, whole.k), value_source = value_rows(f, t, kv_head, whole.v);
  const WarpRows rows(f, t, static_cast<int>(threadIdx.x) / 32 * kWarpRows);
  const int most = t.visible((min(t.first + kTileRows, t.q_count * f.group) - 1) / f.group);
  const int blocks = (most + kKeyBlock - 1) / kKeyBlock;
  const float factor = f.scale * kLog2OfE;

  const auto fetch = [&](int block) {
    if (block < blocks) {
      memory.keys(block).fetch(key_source, block * kKeyBlock);
      memory.values(block).fetch(value_source, block * kKeyBlock);
    }
    copy_async_commit();
  };
  memory.queries().fetch(query_rows(f, f.q, t, kv_head, f.dim, whole.q), t.first);
  memory.douts().fetch(query_rows(f, dout, t, kv_head, f.v_dim, whole.dout), t.first);
  fetch(0);
  fetch(1);
  const TwoFacts facts(f, t, rows, kv_head, all_facts);
  copy_async_wait<1>();
  fence_for_products();
  __syncthreads();

  const int own_row = group_of_block() * kGroupRows;
  const Source queries = memory.queries().by_rows(own_row), douts = memory.douts().by_rows(own_row);
  float sums[dim / 2], s[kScores], dp[kScores];
  unsigned slopes[kKeyBlock / 16][4];
  clear(sums);
  const auto score = [&](int block) {
    multiply_rows<dim, Queries, Keys>(s, queries, memory.keys(block).by_rows(0));
    group_commit();
    multiply_rows<v_dim, Douts, Values>(dp, douts, memory.values(block).by_rows(0));
    group_commit();
  };
  const auto differentiate = [&] {
    hold(dp);
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] *= dp[i] - facts.mean[i / 2 % 2];
  };
  group_fence();
  score(0);
  group_wait<1>();
  hold(s);
  weigh(s, rows, facts, 0, factor);
  group_wait<0>();
  differentiate();
#pragma unroll
  for (int k = 0; k < kKeyBlock / 16; ++k) round_to_left(slopes[k], s, k);
  for (int block = 0; block + 1 < blocks; ++block) {
    meet_for_products();
    fetch(block + 2);
    hold(s);
    hold(dp);
    hold(sums);
    hold(slopes);
    group_fence();
    score(block + 1);
    add_product<Keys>(sums, slopes, memory.keys(block).by_columns());
    group_commit();
    group_wait<2>();
    hold(s);
    weigh(s, rows, facts, (block + 1) * kKeyBlock, factor);
    group_wait<1>();
    differentiate();
    group_wait<0>();
    hold(sums);
    hold(slopes);
#pragma unroll
    for (int k = 0; k < kKeyBlock / 16; ++k) round_to_left(slopes[k], s, k);
  }
  hold(sums);
  hold(slopes);
  group_fence();
  add_product<Keys>(sums, slopes, memory.keys(blocks - 1).by_columns());
  group_commit();
  copy_async_wait<0>();
  group_wait<0>();
  hold(sums);
  hold(slopes);
  write(f, dq, t, rows, kv_head, sums);
}

template <int dim, int v_dim>
void go(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  const Attention& f = op.forward;
  const Tiles tiles = query_tiles(queue, f, f.heads / f.kv_heads, kTileRows);
  launch(queue, tiles.count * static_cast<unsigned>(f.kv_heads), kGroupThreads, Memory<dim, v_dim>::kBytes + kPanelAtom,
         queries_gradient<dim, v_dim>, f, whole_pieces(f, op.dout), op.dout, op.dq, facts, tiles);
}

}  // namespace

void queries_gradient_on_groups(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  with_group_widths(op.forward,
                    [&](auto widths) { go<decltype(widths)::dim, decltype(widths)::v_dim>(op, facts, queue); });
}

}  // namespace troupe::cuda
