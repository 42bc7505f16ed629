// Products in FP8: both operands become codes and scales (quantize.h), then sums of E4M3 (scaled_tile.h); bias, then add,
// come after the last tile, rounded once. c is assigned, or its own start.
#include "kernels/cuda/product_scaled.h"

#include <array>

#include "kernels/cuda/scaled_tile.h"

namespace troupe::cuda {

namespace {

constexpr int kRunsMax = 64;                               // of a launch: their maps are a kernel's parameter
constexpr std::int64_t kCodesMax = std::int64_t{1} << 28;  // bytes at once, where several products could wait

// Sums that go together. A sum's products, which follow each other (kernels/strand.h), are its runs: each begins a tile of
// its own along k, as it would alone.
struct ScaledGradients {
  ScaledSums<kRunsMax> sums{};
  std::array<Tensor, kRunsMax> tensors;
  std::vector<Tensor> a, b;
  std::int64_t size = 0;  // of the codes

  // False: it must wait for another launch. An earlier sum that isn't the last would be added to out of turn.
  bool take(const Product& op) {
    size += op.a.elements() + op.b.elements();
    if (!a.empty() && (a.size() == kRunsMax || size > kCodesMax)) return false;
    TileSums<kRunsMax>& tiles = sums.tiles;
    const int last = tiles.count - 1;
    if (last < 0 || tensors[static_cast<std::size_t>(last)] != op.c) {
      for (int s = 0; s < tiles.count; ++s)
        if (tensors[static_cast<std::size_t>(s)].data == op.c.data) return false;
      tensors[static_cast<std::size_t>(tiles.count)] = op.c;
      tiles.c[tiles.count++] = op.c;
    }
    a.push_back(op.a), b.push_back(op.b);
    tiles.first_run[tiles.count] = static_cast<int>(a.size());
    return true;
  }
};

}  // namespace

namespace {

template <int kN>
void multiply_tiles(const Product& op, const Codes& a, const Codes& b, Queue& queue) {
  ScaledSums<1> sums{};
  sums.a_width = 1;
  if (a.depth > 0) set_run<kN>(sums, 0, a, b);
  TileSums<1>& tiles = sums.tiles;
  tiles.c[0] = op.c, tiles.bias = op.bias, tiles.add = op.add;
  tiles.first_run[1] = 1;
  tiles.count = 1, tiles.accumulate = op.accumulate;
  launch_scaled<kN>(sums, op.b_scaling.width == 1, queue);
}

}  // namespace

void multiply_codes(const Product& op, const Codes& a, const Codes& b, Queue& queue) {
  op.b_scaling.width > 1 && scaled_columns(op.c) == kMiddleTile ? multiply_tiles<kMiddleTile>(op, a, b, queue)
                                                                : multiply_tiles<kNarrowTile>(op, a, b, queue);
}

void run_scaled(const Product& op, Queue& queue) {
  if (op.c.rows == 0 || op.c.cols == 0) return;
  if ((op.transpose_a ? op.a.rows : op.a.cols) == 0) return multiply_codes(op, {}, {}, queue);
  const Codes a = quantize({op.a}, op.a_scaling, op.transpose_a, queue).front();
  multiply_codes(op, a, quantize({op.b}, op.b_scaling, !op.transpose_b, queue).front(), queue);
}

// Runs that have rows, as many in a launch as it takes; the matrix of each is quantized, of others not.
void run_scaled(const GroupedProduct& op, Queue& queue) {
  if (op.a.rows == 0 || op.c.cols == 0) return;
  CHECK(op.a_scaling.width == 1, "tiles of runs {} rows wide have no kernels for GPUs", op.a_scaling.width);
  std::vector<Tensor> matrices;
  for (std::size_t run = 0; run < op.b.size(); ++run)
    if (op.rows[run] > 0) matrices.push_back(op.b[run]);
  const bool any = op.a.cols > 0;
  const Codes a = any ? quantize({op.a}, op.a_scaling, false, queue).front() : Codes{};
  const std::vector<Codes> b = any ? quantize(matrices, op.b_scaling, !op.transpose_b, queue) : std::vector<Codes>();
  std::size_t next = 0;
  std::int64_t row = 0;
  for (std::size_t run = 0; run < op.rows.size();) {
    ScaledSums<kRunsMax> sums{};
    sums.a_width = 1;
    TileSums<kRunsMax>& tiles = sums.tiles;
    tiles.one_a = true;
    for (; run < op.rows.size() && tiles.count < kRunsMax; row += op.rows[run++]) {
      if (op.rows[run] == 0) continue;
      const int s = tiles.count++;
      if (any) set_run<kNarrowTile>(sums, s, a, b[next++]);
      tiles.c[s] = op.c.row_range(row, op.rows[run]);
      tiles.first_row[s] = static_cast<int>(row);
      tiles.first_run[s + 1] = s + 1;
    }
    launch_scaled<kNarrowTile>(sums, op.b_scaling.width == 1, queue);
  }
}

std::size_t run_gradients_scaled(const std::vector<const Product*>& products, Queue& queue) {
  ScaledGradients batch;
  batch.sums.a_width = 1;
  batch.sums.tiles.accumulate = true;
  std::size_t taken = 0;
  while (taken < products.size() && batch.take(*products[taken])) ++taken;
  const std::vector<Codes> a = quantize(batch.a, products.front()->a_scaling, true, queue);
  const std::vector<Codes> b = quantize(batch.b, products.front()->b_scaling, true, queue);
  for (std::size_t run = 0; run < taken; ++run)
    if (a[run].depth > 0) set_run<kNarrowTile>(batch.sums, static_cast<int>(run), a[run], b[run]);
  launch_scaled<kNarrowTile>(batch.sums, true, queue);
  return taken;
}

}  // namespace troupe::cuda
