// Attention of bfloat16 operands on warpgroups, for heads of 192 (queries, keys) and 128 (values).
// The order: keys in blocks of 128 from the span's first. Per block and row, with products q k in float32, chained in
// blocks of 16 d, and c = scale log2 e:
//   highest' = max(highest, block's q k);  shrink = 2^(c highest - c highest');  p = 2^(c q k - c highest')
//   total_t = shrink total_t + sum of p over the block's keys 8n + 2t, 8n + 2t + 1 in order, t = 0..3
//   out = shrink out + bf16(p) v, in blocks of 16 keys
// and at the end out / total, totals of t folded with t ^ 1, then t ^ 2. Keys that a row doesn't see weigh zero, so the
// rows that share its tile change no bit, and a row is the same decoded alone.
// While a block's values are added to `out`, the next block's products become weights.
#include "kernels/cuda/attention_wgmma.h"

namespace troupe::cuda {

namespace {

constexpr int kKeyBlock = 128, kScores = kKeyBlock / 2;  // scores a thread

// Of rows g and g + 8 of a warp's sixteen; totals are of the thread's own keys. Heights are of products q k.
struct Softmax {
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, shrink[2];

  // Products of a block become weights.
  __device__ void take(float (&s)[kScores], float factor) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float best = s[2 * half];
#pragma unroll
      for (int j = 0; j < kScores; j += 4) best = fmaxf(best, fmaxf(s[j + 2 * half], s[j + 2 * half + 1]));
      best = fmaxf(best, __shfl_xor_sync(kWarp, best, 1));
      best = fmaxf(highest[half], fmaxf(best, __shfl_xor_sync(kWarp, best, 2)));
      const float shift = -(best * factor);
      shrink[half] = power_of_two(highest[half] * factor + shift);  // 1 where no new key is higher
      highest[half] = best;
      float sum = 0;
#pragma unroll
      for (int j = 2 * half; j < kScores; j += 4)
#pragma unroll
        for (int i = j; i < j + 2; ++i) {
          s[i] = power_of_two(fmaf(s[i], factor, shift));
          sum += s[i];
        }
      total[half] = fmaf(total[half], shrink[half], sum);
    }
  }
  __device__ float whole_total(int half) const {
    const float two = total[half] + __shfl_xor_sync(kWarp, total[half], 1);
    return two + __shfl_xor_sync(kWarp, two, 2);
  }
};

// Keys that a row doesn't see: -infinity.
__device__ void mask(float (&s)[kScores], const WarpRows& rows, int key) {
  if (rows.all_see(key + kKeyBlock - 1)) return;
  key += 2 * (lane_of_warp() % 4);
#pragma unroll
  for (int i = 0; i < kScores; ++i)
    if (key + i / 4 * 8 + i % 2 >= rows.seen[i / 2 % 2]) s[i] = -INFINITY;
}

// A sum's zero has no sign: whether a block of unseen keys was added can't be told.
template <int count>
__device__ void write(const AttentionViews& f, const Tile& t, const WarpRows& rows, int kv_head, const Softmax& softmax,
                      const float (&out)[count]) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float share = 1.0F / softmax.whole_total(half);
    if (g + 8 * half >= rows.count) continue;
    const int r = rows.first + g + 8 * half, head = kv_head * f.group + r % f.group;
    const std::int64_t row = t.q_begin + r / f.group;
    if (pair == 0) {
      *f.row_max.at<float>(row, head) = softmax.highest[half] * f.scale;
      *f.row_scale.at<float>(row, head) = share;
    }
#pragma unroll
    for (int j = 0; j < count / 4; ++j)
      put_two(f.out, row, j * 8 + 2 * pair, f.v_dim, std::int64_t{head} * f.v_dim, out[4 * j + 2 * half] * share + 0.0F,
              out[4 * j + 2 * half + 1] * share + 0.0F);
  }
}

template <int dim, int v_dim>
struct Memory {
  using Queries = Panels<kTileRows, dim>;
  using Keys = Panels<kKeyBlock, dim>;
  using Values = Panels<kKeyBlock, v_dim>;
  static constexpr int kBytes = Queries::kBytes + 2 * (Keys::kBytes + Values::kBytes);
  unsigned char* data;

  __device__ Queries queries() const { return {data}; }
  __device__ Keys keys(int block) const { return {data + Queries::kBytes + block % 2 * Keys::kBytes}; }
  __device__ Values values(int block) const {
    return {data + Queries::kBytes + 2 * Keys::kBytes + block % 2 * Values::kBytes};
  }
};

template <int dim, int v_dim>
__global__ void __launch_bounds__(kGroupThreads, 1) attend_on_groups(AttentionViews f, WholePieces whole, Tiles tiles) {
  using Shared = Memory<dim, v_dim>;
  using Queries = typename Shared::Queries;
  using Keys = typename Shared::Keys;
  using Values = typename Shared::Values;
  const Tile t = tiles.from_last(blockIdx.x / static_cast<unsigned>(f.kv_heads));
  if (t.q_count == 0) return;
  const Shared memory{panel_memory()};
  const int kv_head = static_cast<int>(blockIdx.x % static_cast<unsigned>(f.kv_heads));
  const HalfRows keys = key_rows(f, t, kv_head, whole.k), values = value_rows(f, t, kv_head, whole.v);
  const WarpRows rows(f, t, static_cast<int>(threadIdx.x) / 32 * kWarpRows);
  const int most = t.visible((min(t.first + kTileRows, t.q_count * f.group) - 1) / f.group);
  const int blocks = (most + kKeyBlock - 1) / kKeyBlock;
  const float factor = f.scale * kLog2OfE;

  memory.queries().fetch(query_rows(f, f.q, t, kv_head, f.dim, whole.q), t.first);
  memory.keys(0).fetch(keys, 0);
  copy_async_commit();
  const auto fetch = [&](int block) {  // keys go a block ahead of values
    memory.values(block).fetch(values, block * kKeyBlock);
    if (block + 1 < blocks) memory.keys(block + 1).fetch(keys, (block + 1) * kKeyBlock);
    copy_async_commit();
  };
  fetch(0);
  copy_async_wait<1>();
  fence_for_products();
  __syncthreads();

  const Source queries = memory.queries().by_rows(group_of_block() * kGroupRows);
  Softmax softmax;
  float out[v_dim / 2], s[kScores];
  unsigned weights[kKeyBlock / 16][4];
  clear(out);
  group_fence();
  multiply_rows<dim, Queries, Keys>(s, queries, memory.keys(0).by_rows(0));
  group_commit();
  group_wait<0>();
  hold(s);
  mask(s, rows, 0);
  softmax.take(s, factor);
#pragma unroll
  for (int k = 0; k < kKeyBlock / 16; ++k) round_to_left(weights[k], s, k);
  for (int block = 0; block + 1 < blocks; ++block) {
    meet_for_products();
    fetch(block + 1);
    hold(s);
    hold(out);
    hold(weights);
    group_fence();
    multiply_rows<dim, Queries, Keys>(s, queries, memory.keys(block + 1).by_rows(0));
    group_commit();
    add_product<Values>(out, weights, memory.values(block).by_columns());
    group_commit();
    group_wait<1>();
    hold(s);
    mask(s, rows, (block + 1) * kKeyBlock);
    softmax.take(s, factor);
    group_wait<0>();
    hold(out);
    hold(weights);
#pragma unroll
    for (int i = 0; i < v_dim / 2; ++i) out[i] *= softmax.shrink[i / 2 % 2];
#pragma unroll
    for (int k = 0; k < kKeyBlock / 16; ++k) round_to_left(weights[k], s, k);
  }
  meet_for_products();
  hold(out);
  hold(weights);
  group_fence();
  add_product<Values>(out, weights, memory.values(blocks - 1).by_columns());
  group_commit();
  group_wait<0>();
  hold(out);
  hold(weights);
  write(f, t, rows, kv_head, softmax, out);
}

template <int dim, int v_dim>
void go(const Attention& op, Queue& queue) {
  const Tiles tiles = query_tiles(queue, op, op.heads / op.kv_heads, kTileRows);
  launch(queue, tiles.count * static_cast<unsigned>(op.kv_heads), kGroupThreads,
         Memory<dim, v_dim>::kBytes + kPanelAtom, attend_on_groups<dim, v_dim>, op, whole_pieces(op), tiles);
}

}  // namespace

bool groups_fit(const Attention& op) {
  return with_group_widths(op, [](auto) {});
}

void attend_on_groups(const Attention& op, Queue& queue) {
  with_group_widths(op, [&](auto widths) { go<decltype(widths)::dim, decltype(widths)::v_dim>(op, queue); });
}

}  // namespace troupe::cuda
