// Attention of bfloat16 operands on tensor cores: the softmax goes along with the sums ("flash attention").
// The order, which is not the CPU's: keys in blocks of 64 from the span's first. Per block and row, with scores
// s = scale * q k in float32, chained in blocks of 16 d:
//   highest' = max(highest, block's s);  shrink = 2^(log2 e highest - log2 e highest');  p = 2^(log2 e (s - highest'))
//   total_t = shrink total_t + sum of p over the block's keys 8n + 2t, 8n + 2t + 1 in order, t = 0..3
//   out = shrink out + bf16(p) v, in blocks of 16 keys
// and at the end out / total, totals of t folded with t ^ 1, then t ^ 2. A row's maxima, shrinking and sums are its own:
// keys that it doesn't see weigh zero, so the rows that share its tile and the width of the tile change no bit, and a row
// is the same decoded alone. (Only a value that isn't finite reaches earlier rows, those of its block of keys.)
// Sixteen rows a warp. Training: eight warps of sixteen rows. Few rows: four warps share sixteen rows, each scores a part
// of a block's keys and sums a part of the output's columns. Keys and values of the next block come while this one is
// computed.
#include "kernels/cuda/attention_flash.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kTrainingWarps = 8;
constexpr int kFewRows = 16;  // queries of a key head a span, on average: up to here rows share warps

// Of rows g and g + 8 of a warp's sixteen; totals are of the thread's own keys.
struct Softmax {
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, shrink[2];

  // Scores of a block become weights.
  __device__ void take(float (&s)[kKeys / 8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float best = s[0][2 * half];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) best = fmaxf(best, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      best = fmaxf(best, __shfl_xor_sync(kWarp, best, 1));
      best = fmaxf(highest[half], fmaxf(best, __shfl_xor_sync(kWarp, best, 2)));
      const float shift = -best * kLog2OfE;
      shrink[half] = power_of_two(highest[half] * kLog2OfE + shift);  // 1 where no new key is higher
      highest[half] = best;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[j][i] = power_of_two(fmaf(s[j][i], kLog2OfE, shift));
          sum += s[j][i];
        }
      total[half] = fmaf(total[half], shrink[half], sum);
    }
  }
  __device__ float whole_total(int half) const {
    const float two = total[half] + __shfl_xor_sync(kWarp, total[half], 1);
    return two + __shfl_xor_sync(kWarp, two, 2);
  }
};

constexpr int kScorePitch = kKeys + 4;  // floats, of a row of scores that warps exchange

template <int dim, int v_dim, int warps, int split>
constexpr int shared_elements() {
  constexpr int queries = Staged<warps / split * kWarpRows, dim>::kElements;
  constexpr int scores = split > 1 ? kWarpRows * kScorePitch * 2 : 0;
  return kStages * KeyStage<dim, v_dim>::kElements > queries ? kStages * KeyStage<dim, v_dim>::kElements + scores
                                                             : queries + scores;
}

// Scores from products; keys that a row doesn't see: -infinity.
__device__ void scale_and_mask(float (&s)[kKeys / 8][4], const WarpRows& rows, int key, float scale) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] *= scale;
  if (rows.all_see(key + kKeys - 1)) return;
  key += 2 * (lane_of_warp() % 4);
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (key + j * 8 + i % 2 >= rows.seen[i / 2]) s[j][i] = -INFINITY;
}

// Scores that `split` warps have parts of: everyone gets all.
template <int split>
__device__ void exchange(float (&s)[kKeys / 8][4], float* scores, int part) {
  const int g = lane_of_warp() / 4, t = lane_of_warp() % 4;
#pragma unroll
  for (int j = 0; j < kKeys / 8 / split; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* to = scores + (g + 8 * half) * kScorePitch + (part * (kKeys / 8 / split) + j) * 8 + 2 * t;
      to[0] = s[j][2 * half];
      to[1] = s[j][2 * half + 1];
    }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* from = scores + (g + 8 * half) * kScorePitch + j * 8 + 2 * t;
      s[j][2 * half] = from[0];
      s[j][2 * half + 1] = from[1];
    }
}

// Scores of a block, in the first kKeys / 8 / split tiles of s.
template <int dim, int split>
__device__ void score(float (&s)[kKeys / 8][4], const unsigned (&q)[dim / 16][4], const Staged<kKeys, dim>& keys,
                      int part) {
  constexpr int own = kKeys / 8 / split;
  float c[own][4];
  clear(c);
#pragma unroll
  for (int d = 0; d < dim / 16; ++d) multiply_by_rows(c, q[d], keys, part * own * 8, d * 16);
#pragma unroll
  for (int j = 0; j < own; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] = c[j][i];
}

// out = shrink out + weights values, for columns `col` and on.
template <int tiles, int v_dim>
__device__ void add_values(float (&out)[tiles][4], const float (&weights)[kKeys / 8][4], const float (&shrink)[2],
                           const Staged<kKeys, v_dim>& values, int col) {
#pragma unroll
  for (int j = 0; j < tiles; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) out[j][i] *= shrink[i / 2];
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    unsigned a[4];
    round_to_left(a, weights[2 * j], weights[2 * j + 1]);
    multiply_by_columns(out, a, values, j * 16, col);
  }
}

// A sum's zero has no sign: whether a block of unseen keys was added can't be told.
template <int tiles>
__device__ void write(const AttentionViews& f, const Tile& t, const WarpRows& rows, int kv_head, const Softmax& softmax,
                      const float (&out)[tiles][4], int col) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float share = 1.0F / softmax.whole_total(half);
    if (g + 8 * half >= rows.count) continue;
    const int r = rows.first + g + 8 * half, head = kv_head * f.group + r % f.group;
    const std::int64_t row = t.q_begin + r / f.group;
    if (pair == 0 && col == 0) {
      *f.row_max.at<float>(row, head) = softmax.highest[half];
      *f.row_scale.at<float>(row, head) = share;
    }
#pragma unroll
    for (int j = 0; j < tiles; ++j)
      put_two(f.out, row, col + j * 8 + 2 * pair, f.v_dim, std::int64_t{head} * f.v_dim,
              out[j][2 * half] * share + 0.0F, out[j][2 * half + 1] * share + 0.0F);
  }
}

template <int dim, int v_dim, int warps, int split>
__global__ void __launch_bounds__(warps * 32, kBlocks<dim>) attend(AttentionViews f, WholePieces whole, Tiles tiles) {
  constexpr int kThreads = warps * 32, kTileRows = warps / split * kWarpRows, kColumns = v_dim / split;
  const Tile t = tiles.from_last(blockIdx.x);
  if (t.q_count == 0) return;
  auto* memory = dynamic_shared<std::uint16_t>();
  const int kv_head = static_cast<int>(blockIdx.y), warp = static_cast<int>(threadIdx.x) / 32, part = warp % split;
  const HalfRows keys = key_rows(f, t, kv_head, whole.k), values = value_rows(f, t, kv_head, whole.v);
  const WarpRows rows(f, t, warp / split * kWarpRows);

  // Queries pass through the memory of the stages into registers.
  unsigned q[dim / 16][4];
  const Staged<kTileRows, dim> queries{memory};
  queries.template fetch<kThreads>(query_rows(f, f.q, t, kv_head, f.dim, whole.q), t.first);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
#pragma unroll
  for (int d = 0; d < dim / 16; ++d) load_left(q[d], queries, warp / split * kWarpRows, d * 16);
  __syncthreads();

  const int most = t.visible((min(t.first + kTileRows, t.q_count * f.group) - 1) / f.group);
  const auto fetch = [&](int key) {
    const KeyStage<dim, v_dim> stage(memory, key / kKeys);
    stage.keys.template fetch<kThreads>(keys, key);
    stage.values.template fetch<kThreads>(values, key);
    copy_async_commit();
  };
  Softmax softmax;
  float out[kColumns / 8][4];
  clear(out);
  fetch(0);
  for (int key = 0; key < most; key += kKeys) {
    copy_async_wait<0>();
    __syncthreads();
    if (key + kKeys < most) fetch(key + kKeys);
    const KeyStage<dim, v_dim> stage(memory, key / kKeys);
    float s[kKeys / 8][4];
    if (split == 1 && key >= rows.seen_by_last) continue;
    score<dim, split>(s, q, stage.keys, part);
    if (split > 1)
      exchange<split>(s, reinterpret_cast<float*>(memory + kStages * KeyStage<dim, v_dim>::kElements), part);
    scale_and_mask(s, rows, key, f.scale);
    softmax.take(s);
    add_values(out, s, softmax.shrink, stage.values, part * kColumns);
  }
  write(f, t, rows, kv_head, softmax, out, part * kColumns);
}

template <int dim, int v_dim, int warps, int split>
void go(const Attention& op, Queue& queue) {
  const Tiles tiles = query_tiles(queue, op, op.heads / op.kv_heads, warps / split * kWarpRows);
  launch(queue, dim3(tiles.count, static_cast<unsigned>(op.kv_heads)), warps * 32,
         2 * shared_elements<dim, v_dim, warps, split>(), attend<dim, v_dim, warps, split>, op, whole_pieces(op),
         tiles);
}

}  // namespace

bool flash_fits(const Attention& op) {
  return with_widths(op, [](auto) {});
}

bool attend_flash(const Attention& op, Queue& queue) {
  return with_widths(op, [&](auto widths) {
    constexpr int dim = decltype(widths)::dim, v_dim = decltype(widths)::v_dim, split = v_dim >= 64 ? 4 : 2;
    if (op.q.rows * (op.heads / op.kv_heads) <= op.spans.rows * kFewRows)
      go<dim, v_dim, split, split>(op, queue);
    else
      go<dim, v_dim, kTrainingWarps, 1>(op, queue);
  });
}

}  // namespace troupe::cuda
