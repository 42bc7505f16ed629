// out[t] = table[ids[t]];  dtable[ids[t]] += dx[t], t in increasing order (dtable f32, its own accumulation): the CPU's
// bits. Padding has ids < 0: its row of out is zero, and it gives no gradient.
// The gradient first sorts the rows by (id, t), by counting for each row those before it: N^2 comparisons, some 30 us
// for 16,384 rows, no matter how large the vocabulary is. Then one block per id and columns adds its rows in order; dx
// is read once, each named row of dtable read and written once.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/move.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kSortThreads = 128, kSortTile = 1024;  // rows that a block places; ids it has at hand at once
constexpr int kRowsAhead = 8;                        // rows that a thread reads at once

// sorted[p] = the row at place p: by id, rows of one id in increasing order.
__global__ void sort_rows(View ids, std::int32_t* sorted) {
  __shared__ int tile[kSortTile];
  const std::int64_t t = std::int64_t{blockIdx.x} * kSortThreads + threadIdx.x;
  const int own = t < ids.rows ? *ids.at<const std::int32_t>(t, 0) : 0;
  int place = 0;
  for (std::int64_t begin = 0; begin < ids.rows; begin += kSortTile) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kSortTile; i += kSortThreads)
      tile[i] = begin + i < ids.rows ? *ids.at<const std::int32_t>(begin + i, 0) : INT32_MAX;
    __syncthreads();
    // Of the rows before this one those of the same id stand before it, too.
    const int before = static_cast<int>(min(max(t - begin, std::int64_t{0}), std::int64_t{kSortTile}));
#pragma unroll 16
    for (int i = 0; i < before; ++i) place += tile[i] <= own ? 1 : 0;
#pragma unroll 16
    for (int i = before; i < kSortTile; ++i) place += tile[i] < own ? 1 : 0;
  }
  if (t < ids.rows) sorted[place] = static_cast<std::int32_t>(t);
}

// Adds the rows of one id, those at place blockIdx.x and on, if that is its first; a thread owns a quad of columns.
template <bool whole>
__global__ void add_rows(View ids, const std::int32_t* sorted, View dx, View dtable, int chunks) {
  const std::int64_t first = blockIdx.x / chunks,
                     col = (std::int64_t{blockIdx.x % chunks} * blockDim.x + threadIdx.x) * 4;
  const int lane = static_cast<int>(threadIdx.x) % 32, id = *ids.at<const std::int32_t>(sorted[first], 0);
  if (id < 0 || (first > 0 && *ids.at<const std::int32_t>(sorted[first - 1], 0) == id)) return;
  insist(id < dtable.rows);
  float4 total = floats(true, fetch<whole>(dtable, id, col));
  for (std::int64_t begin = first, count = 32; count == 32; begin += 32) {
    const bool there = begin + lane < dx.rows;
    const int row = there ? sorted[begin + lane] : 0;
    const unsigned others = ~__ballot_sync(kWarp, there && *ids.at<const std::int32_t>(row, 0) == id);
    count = others == 0 ? 32 : __ffs(static_cast<int>(others)) - 1;
    for (int k = 0; k < count; k += kRowsAhead) {
      uint4 bits[kRowsAhead];
      for (int i = 0; i < kRowsAhead; ++i) {
        const int t = __shfl_sync(kWarp, row, (k + i) % 32);
        if (k + i < count) bits[i] = fetch<whole>(dx, t, col);
      }
      for (int i = 0; i < kRowsAhead; ++i)
        if (k + i < count) total = sum(total, floats(dx, bits[i]));
    }
  }
  store<whole>(dtable, id, col, total);
}

}  // namespace

void run(const Embedding& op, Queue& queue) { move_rows(op.table, op.ids, op.out, Move::look_up, queue); }

void run(const EmbeddingGradient& op, Queue& queue) {
  const std::int64_t rows = op.dx.rows;
  const Sheet<1> sheet(rows, op.dx.cols);
  const View dx = op.dx, dtable = op.dtable;
  auto* sorted = queue.take<std::int32_t>(rows);
  launch(queue, blocks_for(rows, kSortThreads), kSortThreads, 0, sort_rows, op.ids, sorted);
  launch(queue, static_cast<unsigned>(rows) * sheet.chunks, sheet.across, 0,
         whole_quads(dx, dtable) ? add_rows<true> : add_rows<false>, op.ids, sorted, dx, dtable,
         static_cast<int>(sheet.chunks));
}

}  // namespace troupe::cuda
