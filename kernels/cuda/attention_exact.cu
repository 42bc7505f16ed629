// Attention in the CPU's order, bit for bit: each score one chain over d, each output one chain over keys, softmax sums
// in 16 lanes by the key's index in its span; dk and dv one chain over a key head's query heads and their queries,
// dk_shared over all heads. Made for fixtures and to find faults: operands go through float32 units, scores are computed
// once for the maximum and once more for the sums.
// A block has 16 queries of a head (or 16 keys of a key head) and 256 threads: thread (i, lane) has the scores of row i
// with the keys of one lane. Sums of outputs stand in shared memory.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/lanes.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kRows = 16, kThreads = kRows * kFold, kKeys = 2 * kFold;  // queries of a tile, keys of a step

// Rows in shared memory, as float32; the odd one keeps rows of even width out of each other's banks.
struct Rows {
  float* data;
  int cols, pitch;
  __device__ Rows(float*& memory, int rows, int cols_count) : data(memory), cols(cols_count), pitch(cols_count + 1) {
    memory += rows * pitch;
  }
  __device__ float* operator[](int row) const { return data + row * pitch; }
  __device__ void clear(int rows) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * pitch; i += kThreads) data[i] = 0;
  }
  // Columns `to` and on of rows 0 .. rows - 1 from x's rows `row` and on.
  __device__ void read(int rows, int to, const View& x, std::int64_t row, std::int64_t col, int count) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * count; i += kThreads)
      (*this)[i / count][to + i % count] = x.get(row + i / count, col + i % count);
  }
  __device__ void write(int rows, int from, const View& x, std::int64_t row, std::int64_t col, int count) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * count; i += kThreads)
      x.put(row + i / count, col + i % count, (*this)[i / count][from + i % count]);
  }
};
std::size_t bytes_of_rows(int rows, int cols) { return sizeof(float) * static_cast<std::size_t>(rows * (cols + 1)); }

__device__ void read_keys(const AttentionViews& f, const Rows& keys, int rows, std::int64_t row, int kv_head) {
  keys.read(rows, 0, f.k, row, kv_head * f.k_head_stride, f.own_dim);
  if (f.shared_dim > 0) keys.read(rows, f.own_dim, f.k_shared, row, 0, f.shared_dim);
}

__device__ float chain(const float* a, const float* b, int count) {
  float sum = 0;
  for (int d = 0; d < count; ++d) sum = fmaf(a[d], b[d], sum);
  return sum;
}

// sums[r, c] += sum_j weights[r, j] rows[j, from + c], j from first(r) to last(r), for `height` rows r.
template <typename First, typename Last>
__device__ void add_rows(const Rows& sums, int height, const Rows& weights, const Rows& rows, int from, First first,
                         Last last) {
  for (int i = static_cast<int>(threadIdx.x); i < height * sums.cols; i += kThreads) {
    const int r = i / sums.cols, c = i % sums.cols;
    float sum = sums[r][c];
    for (int j = first(r); j < last(r); ++j) sum = fmaf(weights[r][j], rows[j][from + c], sum);
    sums[r][c] = sum;
  }
}

struct FromStart {
  __device__ int operator()(int) const { return 0; }
};

__global__ void attend(AttentionViews f, Tiles tiles) {
  const Tile t = tiles.from_last(blockIdx.x);
  if (t.q_count == 0) return;
  float* memory = dynamic_shared<float>();
  const Rows queries(memory, kRows, f.dim), keys(memory, kKeys, f.dim), values(memory, kKeys, f.v_dim),
      weights(memory, kRows, kKeys), sums(memory, kRows, f.v_dim);
  const int head = static_cast<int>(blockIdx.y), kv_head = head / f.group;
  const int r = static_cast<int>(threadIdx.x) / kFold, lane = static_cast<int>(threadIdx.x) % kFold;
  const int rows = min(kRows, t.q_count - t.first), most = t.visible(t.first + rows - 1);
  const int own = r < rows ? t.visible(t.first + r) : 0;
  queries.read(rows, 0, f.q, t.q_begin + t.first, head * f.dim, f.dim);
  sums.clear(kRows);

  float highest = -INFINITY;
  for (int j = 0; j < most; j += kKeys) {
    __syncthreads();
    read_keys(f, keys, min(kKeys, most - j), t.k_begin + j, kv_head);
    __syncthreads();
    for (int k = lane; k < kKeys && j + k < own; k += kFold)
      highest = larger(chain(queries[r], keys[k], f.dim) * f.scale, highest);
  }
  for (int distance = kFold / 2; distance > 0; distance /= 2)
    highest = larger(__shfl_xor_sync(kWarp, highest, distance), highest);

  float total = 0;
  for (int j = 0; j < most; j += kKeys) {
    __syncthreads();
    read_keys(f, keys, min(kKeys, most - j), t.k_begin + j, kv_head);
    values.read(min(kKeys, most - j), 0, f.v, t.k_begin + j, kv_head * f.v_head_stride, f.v_dim);
    __syncthreads();
    for (int k = lane; k < kKeys && j + k < own; k += kFold)
      total += weights[r][k] = exponential(chain(queries[r], keys[k], f.dim) * f.scale - highest);
    __syncthreads();
    add_rows(sums, rows, weights, values, 0, FromStart{},
             [=](int i) { return min(kKeys, t.visible(t.first + i) - j); });
  }

  const float share = 1.0F / fold_lanes(total);
  __syncthreads();
  if (r >= rows) return;
  const std::int64_t row = t.q_begin + t.first + r;
  if (lane == 0) {
    *f.row_max.at<float>(row, head) = highest;
    *f.row_scale.at<float>(row, head) = share;
  }
  for (int c = lane; c < f.v_dim; c += kFold) f.out.put(row, head * f.v_dim + c, sums[r][c] * share);
}

// P and dS of a query and a key.
struct Pair {
  float weight, gradient;
};
__device__ Pair differentiate(const AttentionViews& f, const RowFacts& row, const float* query, const float* key,
                              const float* dout, const float* value) {
  const float weight = exponential(chain(query, key, f.dim) * f.scale - row.highest) * row.share;
  return {weight, weight * (chain(dout, value, f.v_dim) - row.mean) * f.scale};
}

__global__ void queries_gradient(AttentionViews f, View dout, View dq, const RowFacts* facts, Tiles tiles) {
  const Tile t = tiles.from_last(blockIdx.x);
  if (t.q_count == 0) return;
  float* memory = dynamic_shared<float>();
  const Rows queries(memory, kRows, f.dim), keys(memory, kKeys, f.dim), douts(memory, kRows, f.v_dim),
      values(memory, kKeys, f.v_dim), gradients(memory, kRows, kKeys), sums(memory, kRows, f.dim);
  const int head = static_cast<int>(blockIdx.y), kv_head = head / f.group;
  const int r = static_cast<int>(threadIdx.x) / kFold, lane = static_cast<int>(threadIdx.x) % kFold;
  const int rows = min(kRows, t.q_count - t.first), most = t.visible(t.first + rows - 1);
  const int own = r < rows ? t.visible(t.first + r) : 0;
  const std::int64_t row = t.q_begin + t.first;
  queries.read(rows, 0, f.q, row, head * f.dim, f.dim);
  douts.read(rows, 0, dout, row, head * f.v_dim, f.v_dim);
  sums.clear(kRows);
  for (int j = 0; j < most; j += kKeys) {
    __syncthreads();
    read_keys(f, keys, min(kKeys, most - j), t.k_begin + j, kv_head);
    values.read(min(kKeys, most - j), 0, f.v, t.k_begin + j, kv_head * f.v_head_stride, f.v_dim);
    __syncthreads();
    for (int k = lane; k < kKeys && j + k < own; k += kFold)
      gradients[r][k] =
          differentiate(f, facts[(row + r) * f.heads + head], queries[r], keys[k], douts[r], values[k]).gradient;
    __syncthreads();
    add_rows(sums, rows, gradients, keys, 0, FromStart{},
             [=](int i) { return min(kKeys, t.visible(t.first + i) - j); });
  }
  __syncthreads();
  sums.write(rows, 0, dq, row, head * f.dim, f.dim);
}

// blockIdx.y: the key head, whose dk and dv; or behind the last one, dk_shared. Weights and gradients lie by key.
__global__ void keys_gradient(AttentionViews f, View dout, View dk, View dk_shared, View dv, const RowFacts* facts,
                              Tiles tiles) {
  const Tile t = tiles.data[blockIdx.x];
  if (t.q_count == 0) return;
  const bool shared = static_cast<int>(blockIdx.y) == f.kv_heads;
  float* memory = dynamic_shared<float>();
  const Rows queries(memory, kRows, f.dim), keys(memory, kRows, f.dim), douts(memory, kRows, f.v_dim),
      values(memory, kRows, f.v_dim), weights(memory, kRows, kRows), gradients(memory, kRows, kRows),
      dv_sums(memory, kRows, f.v_dim), dk_sums(memory, kRows, shared ? f.shared_dim : f.own_dim);
  const int r = static_cast<int>(threadIdx.x) / kFold, k = static_cast<int>(threadIdx.x) % kFold;
  const int count = min(kRows, t.k_count - t.first), first_head = shared ? 0 : static_cast<int>(blockIdx.y) * f.group;
  const int heads = shared ? f.heads : f.group;
  const std::int64_t key = t.k_begin + t.first;
  dk_sums.clear(kRows);
  dv_sums.clear(kRows);
  for (int head = first_head; head < first_head + heads; ++head) {
    __syncthreads();
    read_keys(f, keys, count, key, head / f.group);
    values.read(count, 0, f.v, key, head / f.group * f.v_head_stride, f.v_dim);
    for (int i = t.first_query(t.first); i < t.q_count; i += kRows) {
      const int rows = min(kRows, t.q_count - i);
      const std::int64_t row = t.q_begin + i;
      __syncthreads();
      queries.read(rows, 0, f.q, row, head * f.dim, f.dim);
      douts.read(rows, 0, dout, row, head * f.v_dim, f.v_dim);
      __syncthreads();
      if (r < rows && k < count && t.first + k < t.visible(i + r)) {
        const Pair pair = differentiate(f, facts[(row + r) * f.heads + head], queries[r], keys[k], douts[r], values[k]);
        weights[k][r] = pair.weight;
        gradients[k][r] = pair.gradient;
      }
      __syncthreads();
      const auto first = [=](int j) { return max(0, t.first_query(t.first + j) - i); };
      const auto last = [=](int) { return rows; };
      add_rows(dk_sums, count, gradients, queries, shared ? f.own_dim : 0, first, last);
      if (!shared) add_rows(dv_sums, count, weights, douts, 0, first, last);
    }
  }
  __syncthreads();
  if (shared) return dk_sums.write(count, 0, dk_shared, key, 0, f.shared_dim);
  dk_sums.write(count, 0, dk, key, blockIdx.y * f.k_head_stride, f.own_dim);
  dv_sums.write(count, 0, dv, key, blockIdx.y * f.v_head_stride, f.v_dim);
}

}  // namespace

void attend_exactly(const Attention& op, Queue& queue) {
  const int dim = op.own_dim + op.shared_dim;
  const Tiles tiles = query_tiles(queue, op, 1, kRows);
  const std::size_t shared =
      bytes_of_rows(kRows + kKeys, dim) + bytes_of_rows(kKeys + kRows, op.v_dim) + bytes_of_rows(kRows, kKeys);
  launch(queue, dim3(tiles.count, static_cast<unsigned>(op.heads)), kThreads, shared, attend, op, tiles);
}

void differentiate_exactly(const AttentionBackward& op, const RowFacts* facts, Queue& queue) {
  const Attention& f = op.forward;
  const int dim = f.own_dim + f.shared_dim;
  const Tiles queries = query_tiles(queue, f, 1, kRows), keys = key_tiles(queue, f, kRows);
  launch(queue, dim3(queries.count, static_cast<unsigned>(f.heads)), kThreads,
         bytes_of_rows(2 * kRows + kKeys, dim) + bytes_of_rows(kRows + kKeys, f.v_dim) + bytes_of_rows(kRows, kKeys),
         queries_gradient, f, op.dout, op.dq, facts, queries);
  launch(queue, dim3(keys.count, static_cast<unsigned>(f.kv_heads + (f.shared_dim > 0 ? 1 : 0))), kThreads,
         bytes_of_rows(3 * kRows, dim) + bytes_of_rows(3 * kRows, f.v_dim) + bytes_of_rows(2 * kRows, kRows),
         keys_gradient, f, op.dout, op.dk, op.dk_shared, op.dv, facts, keys);
}

}  // namespace troupe::cuda
