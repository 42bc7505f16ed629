// c[t] = a[t] b[r], or b[r]^T, for the rows t of run r (an expert's); c assigned. bfloat16: one launch of tiles for all
// runs, each element as product_half.cu would compute it. Whatever else: one product a run.
// A run's row tiles begin with its first row; blocks go run by run.
#include "kernels/grouped_product.h"

#include <algorithm>

#include "kernels/cuda/half_tile.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/product_scaled.h"
#include "kernels/cuda/product_wgmma.h"

namespace troupe::cuda {

namespace {

constexpr int kRunsMax = 128;  // of a launch: they travel as a kernel's parameter

struct Runs {
  const std::uint16_t* b[kRunsMax];
  int first_row[kRunsMax + 1], first_tile[kRunsMax + 1];  // and where the last ends
  int count = 0;
};

template <typename Tile>
__global__ __launch_bounds__(Tile::kThreads, Tile::kBlocksAtOnce) void grouped_tiles(HalfMatrix a, HalfMatrix b, View c,
                                                                                     const __grid_constant__ Runs runs,
                                                                                     std::int64_t depth,
                                                                                     int column_tiles) {
  const int block = static_cast<int>(blockIdx.x), row_tile = block / column_tiles;
  int run = 0;  // the last that begins at or before the tile
  for (int above = runs.count; above - run > 1;) {
    const int middle = (run + above) / 2;
    (runs.first_tile[middle] <= row_tile ? run : above) = middle;
  }
  const TilePlace place = place_of_tile(block - runs.first_tile[run] * column_tiles,
                                        runs.first_tile[run + 1] - runs.first_tile[run], column_tiles);
  a.rows = c.rows = runs.first_row[run + 1];
  b.data = runs.b[run];
  Tile tile(runs.first_row[run] + std::int64_t{place.row} * Tile::kRows, std::int64_t{place.column} * Tile::kColumns);
  tile.multiply(a, b, depth);
  tile.finish(c, View(), View());
}

template <typename Tile>
void launch_runs(const GroupedProduct& op, const Runs& runs, Queue& queue) {
  const unsigned column_tiles = blocks_for(op.c.cols, Tile::kColumns);
  launch(queue, static_cast<unsigned>(runs.first_tile[runs.count]) * column_tiles, Tile::kThreads, Tile::kSharedBytes,
         grouped_tiles<Tile>, op.a, op.b.front(), op.c, runs, op.a.cols, static_cast<int>(column_tiles));
}

template <bool transpose_b>
void launch_runs(const GroupedProduct& op, const Runs& runs, Queue& queue) {
  with_tile_columns(op.c.cols, [&](auto columns) {
    launch_runs<HalfTile<false, transpose_b, decltype(columns)::kValue, true>>(op, runs, queue);
  });
}

// Runs that have rows, from `run` on as many as a launch takes; moves `run` and `row` behind them.
template <int tile_rows>
Runs next_runs(const GroupedProduct& op, std::size_t& run, int& row) {
  Runs runs;
  runs.first_row[0] = row, runs.first_tile[0] = 0;
  for (; run < op.rows.size() && runs.count < kRunsMax; ++run) {
    if (op.rows[run] == 0) continue;
    runs.b[runs.count] = static_cast<const std::uint16_t*>(op.b[run].data);
    runs.first_tile[runs.count + 1] = runs.first_tile[runs.count] + (op.rows[run] + tile_rows - 1) / tile_rows;
    row += op.rows[run];
    runs.first_row[++runs.count] = row;
  }
  return runs;
}

bool goes_in_one(const GroupedProduct& op) {
  const auto suits = [&](const Tensor& b) {
    return b.dtype == Dtype::bf16 && rows_aligned(b) && b.stride == op.b.front().stride;
  };
  return op.a.dtype == Dtype::bf16 && rows_aligned(op.a) && std::all_of(op.b.begin(), op.b.end(), suits);
}

}  // namespace

void run(const GroupedProduct& op, Queue& queue) {
  if (op.a_scaling) return run_scaled(op, queue);
  if (!goes_in_one(op)) return each_product(op, [&](const Product& one) { run(one, queue); });
  if (queue.warpgroups() && takes_wgmma(op)) return run_wgmma(op, queue);
  int row = 0;
  for (std::size_t first = 0; first < op.rows.size();) {
    const Runs runs = next_runs<HalfTile<false, false, 64, true>::kRows>(op, first, row);
    if (runs.count > 0) op.transpose_b ? launch_runs<true>(op, runs, queue) : launch_runs<false>(op, runs, queue);
  }
}

}  // namespace troupe::cuda
