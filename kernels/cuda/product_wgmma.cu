// A product of bfloat16 on warpgroups: one sum of one run (warpgroup_tile.h), then bias, then add, rounded once.
#include "kernels/cuda/product_wgmma.h"

#include "kernels/cuda/warpgroup_tile.h"

namespace troupe::cuda {

namespace {

template <bool a_across, bool b_across>
void launch_product(const Product& op, Queue& queue) {
  if (op.c.elements() == 0) return;
  const std::int64_t depth = a_across ? op.a.rows : op.a.cols;
  with_tiles(tiles_for(op.c, op.bias, op.add, op.accumulate), [&](auto tiles) {
    TileSums<1> sums{};
    if (depth > 0) {
      sums.a[0] = side_map(op.a, kTileRows, a_across);
      sums.b[0] = side_map(op.b, columns_of(tiles()), b_across);
    }
    if (tiles() != Tiles::ragged) sums.boxes_of_c[0] = box_map(op.c, kGroupRows);
    if (tiles() != Tiles::ragged && op.add) sums.boxes_of_add = box_map(op.add, kGroupRows);
    sums.steps[0] = tile_steps(depth);
    sums.c[0] = op.c, sums.bias = op.bias, sums.add = op.add;
    sums.first_run[1] = 1;
    sums.count = 1, sums.accumulate = op.accumulate;
    launch_sums<a_across, b_across, tiles()>(sums, queue);
  });
}

}  // namespace

bool takes_wgmma(const Product& op) { return is_in_chunks(op.a) && is_in_chunks(op.b); }

void run_wgmma(const Product& op, Queue& queue) {
  if (op.transpose_a)
    op.transpose_b ? launch_product<true, false>(op, queue) : launch_product<true, true>(op, queue);
  else
    op.transpose_b ? launch_product<false, false>(op, queue) : launch_product<false, true>(op, queue);
}

}  // namespace troupe::cuda
