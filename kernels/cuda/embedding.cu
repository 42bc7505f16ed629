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
constexpr int kRowsAhead = 4;                        // rows that a thread reads at once

// A row of dx and where it goes.
struct alignas(8) Named {
  std::int32_t id, row;
};

// sorted[p]: the row at place p: by id, rows of one id in increasing order.
__global__ void __launch_bounds__(kSortThreads) sort_rows(View ids, Named* sorted) {
  __shared__ uint4 tile[kSortTile / 4];
  const int t = static_cast<int>(blockIdx.x * kSortThreads + threadIdx.x), rows = static_cast<int>(ids.rows);
  const auto id_of = [&](int row) { return *ids.at<const std::int32_t>(row, 0); };
  const int own = t < rows ? id_of(t) : 0;
  int place = 0;
  for (int begin = 0; begin < rows; begin += kSortTile) {
    int next[kSortTile / kSortThreads];
#pragma unroll
    for (int i = 0; i < kSortTile / kSortThreads; ++i) {
      const int row = begin + static_cast<int>(threadIdx.x) + i * kSortThreads;
      next[i] = row < rows ? id_of(row) : INT32_MAX;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kSortTile / kSortThreads; ++i)
      reinterpret_cast<int*>(tile)[threadIdx.x + i * kSortThreads] = next[i];
    __syncthreads();
    // Of the rows before this one those of the same id stand before it, too. Where all of a tile is before or behind the
    // block's rows, that is one question for four ids at a time.
    const int first = static_cast<int>(blockIdx.x) * kSortThreads;
    if (begin + kSortTile <= first || begin >= first + kSortThreads) {
      const int limit = begin < first ? own + 1 : own;
      const auto stands_before = [&](unsigned id) { return static_cast<int>(id) < limit ? 1 : 0; };
#pragma unroll 8
      for (int i = 0; i < kSortTile / 4; ++i) {
        const uint4 four = tile[i];
        place += stands_before(four.x) + stands_before(four.y) + stands_before(four.z) + stands_before(four.w);
      }
    } else {
      for (int i = 0; i < kSortTile; ++i) {
        const int id = reinterpret_cast<const int*>(tile)[i];
        place += id < own || (id == own && begin + i < t) ? 1 : 0;
      }
    }
  }
  if (t < rows) sorted[place] = {own, t};
}

// Adds the rows of one id, those at place blockIdx.x and on, if that is its first; a thread owns a quad of columns.
template <bool whole>
__global__ void add_rows(const Named* sorted, const __grid_constant__ View dx, const __grid_constant__ View dtable,
                         int chunks) {
  const std::int64_t first = blockIdx.x / chunks,
                     col = (std::int64_t{blockIdx.x % chunks} * blockDim.x + threadIdx.x) * 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto named = [&](std::int64_t place) { return place < dx.rows ? sorted[place] : Named{-1, 0}; };
  const int before = first > 0 ? sorted[first - 1].id : -1;
  Named next = named(first + lane);
  const int id = __shfl_sync(kWarp, next.id, 0);
  if (id < 0 || before == id) return;
  insist(id < dtable.rows);
  float4 total = floats(true, fetch<whole>(dtable, id, col));
  for (std::int64_t begin = first, count = 32; count == 32; begin += 32) {
    if (begin > first) next = named(begin + lane);
    const unsigned others = ~__ballot_sync(kWarp, next.id == id);
    count = others == 0 ? 32 : __ffs(static_cast<int>(others)) - 1;
    for (int k = 0; k < count; k += kRowsAhead) {
      uint4 bits[kRowsAhead];
      for (int i = 0; i < kRowsAhead; ++i) {
        const int t = __shfl_sync(kWarp, next.row, (k + i) % 32);
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
  auto* sorted = queue.take<Named>(rows);
  launch(queue, blocks_for(rows, kSortThreads), kSortThreads, 0, sort_rows, op.ids, sorted);
  launch(queue, static_cast<unsigned>(rows) * sheet.chunks, sheet.across, 0,
         whole_quads(dx, dtable) ? add_rows<true> : add_rows<false>, sorted, dx, dtable,
         static_cast<int>(sheet.chunks));
}

}  // namespace troupe::cuda
