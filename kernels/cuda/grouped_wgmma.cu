// Grouped products and weight gradients that follow each other on warpgroups: many sums in one launch (warpgroup_tile.h),
// with the bits that each has by itself.
#include <array>

#include "kernels/cuda/product_wgmma.h"
#include "kernels/cuda/warpgroup_tile.h"

namespace troupe::cuda {

namespace {

constexpr int kRunsMax = 64;  // of a launch: their maps are a kernel's parameter

// Runs that have rows, from `run` on as many as a launch takes; moves `run` and `row` behind them.
template <bool b_across, Tiles tiles>
void launch_runs(const GroupedProduct& op, std::size_t& run, std::int64_t& row, Queue& queue) {
  TileSums<kRunsMax> sums{};
  sums.one_a = true;
  if (op.a.cols > 0) sums.a[0] = side_map(op.a, kTileRows, false);
  for (; run < op.rows.size() && sums.count < kRunsMax; row += op.rows[run++]) {
    if (op.rows[run] == 0) continue;
    const int s = sums.count++;
    if (op.a.cols > 0) sums.b[s] = side_map(op.b[run], columns_of(tiles), b_across);
    sums.steps[s] = tile_steps(op.a.cols);
    const Tensor c = op.c.row_range(row, op.rows[run]);
    sums.c[s] = c;
    if (tiles != Tiles::ragged) sums.boxes_of_c[s] = box_map(c, kGroupRows);
    sums.first_row[s] = static_cast<int>(row);
    sums.first_run[s + 1] = s + 1;
  }
  launch_sums<false, b_across, tiles>(sums, queue);
}

template <bool b_across>
void launch_form(const GroupedProduct& op, Queue& queue) {
  with_tiles(tiles_for(op.c, {}, {}, false), [&](auto tiles) {
    std::int64_t row = 0;
    for (std::size_t run = 0; run < op.rows.size();) launch_runs<b_across, tiles()>(op, run, row, queue);
  });
}

Tiles tiles_of(const Product& op) { return tiles_for(op.c, {}, {}, true); }

// The sums of one launch, and which tensors they are.
struct Gradients {
  TileSums<kRunsMax> sums{};
  std::array<Tensor, kRunsMax> tensors;
  Tiles tiles;
  int runs = 0;

  // False: it must wait for another launch. An earlier sum that isn't the last would be added to out of turn.
  bool take(const Product& op) {
    if (runs == kRunsMax || tiles_of(op) != tiles) return false;
    const int last = sums.count - 1;
    if (last < 0 || tensors[static_cast<std::size_t>(last)] != op.c) {
      for (int s = 0; s < sums.count; ++s)
        if (tensors[static_cast<std::size_t>(s)].data == op.c.data) return false;
      tensors[static_cast<std::size_t>(sums.count)] = op.c;
      if (tiles != Tiles::ragged) sums.boxes_of_c[sums.count] = box_map(op.c, kGroupRows);
      sums.c[sums.count++] = op.c;
    }
    if (op.a.rows > 0) sums.a[runs] = box_map(op.a, kTileDepth);
    if (op.a.rows > 0) sums.b[runs] = box_map(op.b, kTileDepth);
    sums.steps[runs] = tile_steps(op.a.rows);
    sums.first_run[sums.count] = ++runs;
    return true;
  }
};

}  // namespace

bool takes_wgmma(const GroupedProduct& op) {
  return is_in_chunks(op.a) && std::all_of(op.b.begin(), op.b.end(), is_in_chunks);
}

void run_wgmma(const GroupedProduct& op, Queue& queue) {
  op.transpose_b ? launch_form<false>(op, queue) : launch_form<true>(op, queue);
}

std::size_t run_gradients_wgmma(const std::vector<const Product*>& products, Queue& queue) {
  Gradients batch{.sums = {}, .tensors = {}, .tiles = tiles_of(*products.front())};
  batch.sums.accumulate = true;
  std::size_t taken = 0;
  while (taken < products.size() && batch.take(*products[taken])) ++taken;
  with_tiles(batch.tiles, [&](auto tiles) { launch_sums<true, true, tiles()>(batch.sums, queue); });
  return taken;
}

}  // namespace troupe::cuda
