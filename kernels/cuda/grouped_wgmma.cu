// Grouped products and weight gradients that follow each other on warpgroups: many sums in one launch (warpgroup_tile.h),
// with the bits that each has by itself.
#include "kernels/cuda/gradient_sums.h"
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

}  // namespace

bool takes_wgmma(const GroupedProduct& op) {
  return is_in_chunks(op.a) && std::all_of(op.b.begin(), op.b.end(), is_in_chunks);
}

void run_wgmma(const GroupedProduct& op, Queue& queue) {
  op.transpose_b ? launch_form<false>(op, queue) : launch_form<true>(op, queue);
}

std::size_t run_gradients_wgmma(const std::vector<const Product*>& products, Queue& queue) {
  const Tiles kind = tiles_of(*products.front());
  std::size_t taken = 0;
  const std::vector<GradientSum> all =
      first_sums(products, kRunsMax, taken, [&](const Product& op) { return tiles_of(op) == kind; });
  TileSums<kRunsMax> sums{};
  sums.accumulate = true;
  int run = 0;
  for (const GradientSum& sum : all) {
    if (kind != Tiles::ragged) sums.boxes_of_c[sums.count] = box_map(sum.c, kGroupRows);
    sums.c[sums.count] = sum.c;
    for (const Product* op : sum.runs) {
      if (op->a.rows > 0) sums.a[run] = box_map(op->a, kTileDepth), sums.b[run] = box_map(op->b, kTileDepth);
      sums.steps[run++] = tile_steps(op->a.rows);
    }
    sums.first_run[++sums.count] = run;
  }
  with_tiles(kind, [&](auto tiles) { launch_sums<true, true, tiles()>(sums, queue); });
  return taken;
}

}  // namespace troupe::cuda
