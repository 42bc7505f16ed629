// dk, dv and dk_shared of attention, bfloat16 operands on tensor cores (formulas: kernels/cpu/attention.cc).
// The order: dv[j] = sum_r bf16(P[r, j]) dout[r], dk[j] = scale * sum_r bf16(P (dP - <dout, out>))[r, j] q[r] over the
// rows r of the key head, a row a query of one of its heads, queries in order and a query's heads side by side, in blocks
// of 16 from the span's first. dk_shared adds the key heads' sums in order: they stand in working memory, 4 bytes for
// each key, key head and shared column.
// A warp has sixteen keys, a block eight warps. Scores are made transposed, (keys, rows), so that weights are at once
// the left operand of the sums. The tile's keys and values stay in shared memory, rows pass by in blocks of 32.
#include "kernels/cuda/attention_flash.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32, kTileKeys = kWarps * 16, kRows = 32;
constexpr int kSumThreads = 256, kHeadsAtOnce = 8;

// A block of rows; the next one comes into the other stage meanwhile.
template <int dim, int v_dim>
struct RowStage {
  Staged<kRows, dim> queries;
  Staged<kRows, v_dim> douts;
  RowFacts* facts;
  static constexpr int kFactsAt = Staged<kRows, dim>::kElements + Staged<kRows, v_dim>::kElements;
  static constexpr int kElements = kFactsAt + kRows * static_cast<int>(sizeof(RowFacts)) / 2;
  __device__ RowStage(std::uint16_t* memory, int number) {
    memory += number % kStages * kElements;
    queries.data = memory;
    douts.data = memory + queries.kElements;
    facts = reinterpret_cast<RowFacts*>(memory + kFactsAt);
  }
};

// Rows behind the span's last have a share of zero.
__device__ void fetch_facts(RowFacts* to, const AttentionViews& f, const Tile& t, int kv_head, int first,
                            const RowFacts* facts) {
  const int i = static_cast<int>(threadIdx.x), r = first + i;
  if (i >= kRows) return;
  const bool inside = r < t.q_count * f.group;
  const std::int64_t row = t.q_begin + r / f.group;
  copy_async(to + i, inside ? facts + row * f.heads + kv_head * f.group + r % f.group : facts, inside ? 16 : 0);
}

// Sixteen keys of a tile, from the span's number `key` on, and a block of rows.
struct KeysAndRows {
  const AttentionViews& f;
  const Tile& t;
  int key, row;

  // The first row of the block that sees key + i; negative: all do.
  __device__ int first_place(int i) const { return (key + i - (t.k_count - t.q_count)) * f.group - row; }
  __device__ bool none_sees() const { return first_place(0) >= kRows; }
  __device__ bool all_see() const { return first_place(15) <= 0; }
  // Products k q to weights P; zero where a row doesn't see a key.
  __device__ void weigh(float (&s)[kRows / 8][4], const RowFacts* facts) const {
    const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] = weight_of(s[j][i], f.scale, facts[j * 8 + 2 * pair + i % 2]);
    if (all_see()) return;
    const int first[2] = {first_place(g) - 2 * pair, first_place(g + 8) - 2 * pair};
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (j * 8 + i % 2 < first[i / 2]) s[j][i] = 0;
  }
  // dS / scale from P and dP.
  __device__ void differentiate(float (&p)[kRows / 8][4], const float (&dp)[kRows / 8][4],
                                const RowFacts* facts) const {
    const int pair = lane_of_warp() % 4;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) p[j][i] *= dp[j][i] - facts[j * 8 + 2 * pair + i % 2].mean;
  }
};

// sums += weights rows
template <int tiles, int cols>
__device__ void add_rows(float (&sums)[tiles][4], const float (&weights)[kRows / 8][4],
                         const Staged<kRows, cols>& rows) {
#pragma unroll
  for (int j = 0; j < kRows / 16; ++j) {
    unsigned a[4];
    round_to_left(a, weights[2 * j], weights[2 * j + 1]);
    multiply_by_columns(sums, a, rows, j * 16, 0);
  }
}

// Sums of sixteen keys from the span's key number `key` on: columns of x from `begin` on, `width` of them.
template <int tiles>
__device__ void write(const View& x, const Tile& t, int key, const float (&sums)[tiles][4], int width,
                      std::int64_t begin) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (key + g + 8 * half >= t.k_count) continue;
#pragma unroll
    for (int j = 0; j < tiles; ++j)
      put_two(x, t.k_begin + key + g + 8 * half, j * 8 + 2 * pair, width, begin, sums[j][2 * half],
              sums[j][2 * half + 1]);
  }
}
// Of dk the columns behind the own ones: a key head's share of dk_shared, (kv_heads, keys, pitch).
template <int tiles>
__device__ void write_shared(const AttentionViews& f, float* shares, int pitch, const Tile& t, int key, int kv_head,
                             const float (&sums)[tiles][4]) {
  const int g = lane_of_warp() / 4, pair = lane_of_warp() % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (key + g + i / 2 * 8 >= t.k_count) continue;
    float* row = shares + (kv_head * f.k.rows + t.k_begin + key + g + i / 2 * 8) * pitch;
#pragma unroll
    for (int j = 0; j < tiles; ++j) {
      const int col = j * 8 + 2 * pair + i % 2 - f.own_dim;
      if (col >= 0 && col < f.shared_dim) row[col] = sums[j][i];
    }
  }
}

template <int dim, int v_dim>
__global__ void __launch_bounds__(kThreads, dim <= 32 ? 2 : 1)
    keys_gradient(AttentionViews f, WholePieces whole, View dout, View dk, View dv, float* shares, int pitch,
                  const RowFacts* facts, Tiles tiles) {
  const Tile t = tiles.data[blockIdx.x];
  if (t.q_count == 0) return;
  auto* memory = dynamic_shared<std::uint16_t>();
  const int kv_head = static_cast<int>(blockIdx.y), own = static_cast<int>(threadIdx.x) / 32 * 16;
  const Staged<kTileKeys, dim> keys{memory};
  const Staged<kTileKeys, v_dim> values{keys.data + keys.kElements};
  keys.template fetch<kThreads>(key_rows(f, t, kv_head, whole.k), t.first);
  values.template fetch<kThreads>(value_rows(f, t, kv_head, whole.v), t.first);
  const auto stage_of = [&](int row) { return RowStage<dim, v_dim>(values.data + values.kElements, row / kRows); };
  const auto fetch = [&](int row) {
    const RowStage<dim, v_dim> stage = stage_of(row);
    stage.queries.template fetch<kThreads>(query_rows(f, f.q, t, kv_head, f.dim, whole.q), row);
    stage.douts.template fetch<kThreads>(query_rows(f, dout, t, kv_head, f.v_dim, whole.dout), row);
    fetch_facts(stage.facts, f, t, kv_head, row, facts);
    copy_async_commit();
  };
  float dk_sums[dim / 8][4], dv_sums[v_dim / 8][4];
  clear(dk_sums);
  clear(dv_sums);
  const int begin = t.first_query(t.first) * f.group / kRows * kRows, end = t.q_count * f.group;
  fetch(begin);
  for (int row = begin; row < end; row += kRows) {
    copy_async_wait<0>();
    __syncthreads();
    if (row + kRows < end) fetch(row + kRows);
    const KeysAndRows block{f, t, t.first + own, row};
    if (block.none_sees()) continue;
    const RowStage<dim, v_dim> stage = stage_of(row);
    float s[kRows / 8][4], dp[kRows / 8][4];
    multiply_staged<dim>(s, keys, own, stage.queries);
    multiply_staged<v_dim>(dp, values, own, stage.douts);
    block.weigh(s, stage.facts);
    add_rows(dv_sums, s, stage.douts);
    block.differentiate(s, dp, stage.facts);
    add_rows(dk_sums, s, stage.queries);
  }
#pragma unroll
  for (int j = 0; j < dim / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) dk_sums[j][i] *= f.scale;
  write(dv, t, t.first + own, dv_sums, f.v_dim, kv_head * f.v_head_stride);
  write(dk, t, t.first + own, dk_sums, f.own_dim, kv_head * f.k_head_stride);
  if (f.shared_dim > 0) write_shared(f, shares, pitch, t, t.first + own, kv_head, dk_sums);
}

// dk_shared[j, c] = sum_g shares[g, j, c], four columns a thread; blockIdx.y cuts the tile's rows.
__global__ void sum_shares(View dk_shared, const float* shares, int pitch, int kv_heads, Tiles tiles, int size) {
  const Tile t = tiles.data[blockIdx.x];
  const int quads = pitch / 4, i = static_cast<int>(blockIdx.y * kSumThreads + threadIdx.x), col = i % quads * 4;
  const int key = t.first + i / quads;
  if (t.q_count == 0 || i >= size * quads || key >= t.k_count) return;
  const std::int64_t row = t.k_begin + key;
  float4 total = make_float4(0, 0, 0, 0);
#pragma unroll kHeadsAtOnce
  for (int g = 0; g < kv_heads; ++g)
    total = sum(total, *reinterpret_cast<const float4*>(shares + (g * dk_shared.rows + row) * pitch + col));
  dk_shared.put_quad(row, col, total);
}

template <int dim, int v_dim>
void go(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  const Attention& f = op.forward;
  constexpr int elements = Staged<kTileKeys, dim>::kElements + Staged<kTileKeys, v_dim>::kElements +
                           kStages * RowStage<dim, v_dim>::kElements;
  const Tiles tiles = key_tiles(queue, f, kTileKeys);
  const int pitch = (f.shared_dim + 3) / 4 * 4;
  float* shares = queue.take<float>(f.kv_heads * f.k.rows * pitch);
  launch(queue, dim3(tiles.count, static_cast<unsigned>(f.kv_heads)), kThreads, 2 * elements, keys_gradient<dim, v_dim>,
         f, whole_pieces(f, op.dout), op.dout, op.dk, op.dv, shares, pitch, facts, tiles);
  if (f.shared_dim > 0) sum_key_shares(op, shares, pitch, tiles, kTileKeys, queue);
}

}  // namespace

void sum_key_shares(const AttentionBackward& op, const float* shares, int pitch, const Tiles& tiles, int size,
                    Queue& queue) {
  launch(queue, dim3(tiles.count, blocks_for(std::int64_t{size} * pitch / 4, kSumThreads)), kSumThreads, 0, sum_shares,
         op.dk_shared, shares, pitch, op.forward.kv_heads, tiles, size);
}

void keys_gradient_flash(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  with_widths(op.forward, [&](auto widths) { go<decltype(widths)::dim, decltype(widths)::v_dim>(op, facts, queue); });
}

}  // namespace troupe::cuda
