// c = (accumulate ? c : 0) + A B + bias + add, A (M, K) and B (K, N) bfloat16, as they are or transposed, on tensor cores;
// c float32 or bfloat16, assigned, or its own start. The order of a sum: half_tile.h; then bias, then add, rounded once.
// K is never split; the tile is chosen by N and alignment, which changes no bit.
#include "kernels/cuda/half_tile.h"
#include "kernels/cuda/kernels.h"

namespace troupe::cuda {

namespace {

template <typename Tile>
__global__ __launch_bounds__(Tile::kThreads,
                             Tile::kBlocksAtOnce) void product_tiles(HalfMatrix a, HalfMatrix b, View c, View bias,
                                                                     View add, bool accumulate, std::int64_t depth,
                                                                     int row_tiles, int column_tiles) {
  const TilePlace place = place_of_tile(static_cast<int>(blockIdx.x), row_tiles, column_tiles);
  Tile tile(std::int64_t{place.row} * Tile::kRows, std::int64_t{place.column} * Tile::kColumns);
  if (accumulate) tile.start_from(c);
  tile.multiply(a, b, depth);
  tile.finish(c, bias, add);
}

template <typename Tile>
void launch_tiles(const Product& op, Queue& queue) {
  const unsigned row_tiles = blocks_for(op.c.rows, Tile::kRows), column_tiles = blocks_for(op.c.cols, Tile::kColumns);
  launch(queue, row_tiles * column_tiles, Tile::kThreads, Tile::kSharedBytes, product_tiles<Tile>, op.a, op.b, op.c,
         op.bias, op.add, op.accumulate, op.transpose_a ? op.a.rows : op.a.cols, static_cast<int>(row_tiles),
         static_cast<int>(column_tiles));
}

template <bool transpose_a, bool transpose_b>
void launch_form(const Product& op, Queue& queue) {
  if (!rows_aligned(op.a) || !rows_aligned(op.b))
    return launch_tiles<HalfTile<transpose_a, transpose_b, 64, false>>(op, queue);
  with_tile_columns(op.c.cols, [&](auto columns) {
    launch_tiles<HalfTile<transpose_a, transpose_b, decltype(columns)::kValue, true>>(op, queue);
  });
}

}  // namespace

void multiply_halves(const Product& op, Queue& queue) {
  if (op.transpose_a)
    op.transpose_b ? launch_form<true, true>(op, queue) : launch_form<true, false>(op, queue);
  else
    op.transpose_b ? launch_form<false, true>(op, queue) : launch_form<false, false>(op, queue);
}

}  // namespace troupe::cuda
