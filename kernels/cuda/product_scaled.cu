// Products in FP8: both operands become codes and scales (quantize.h), then sums of E4M3 (scaled_tile.h); bias, then add,
// come after the last tile, rounded once. c is assigned, or its own start.
#include "kernels/cuda/product_scaled.h"

#include "kernels/cuda/gradient_sums.h"
#include "kernels/cuda/scaled_tile.h"

namespace troupe::cuda {

namespace {

constexpr int kRunsMax = 64;                               // of a launch: their maps are a kernel's parameter
constexpr std::int64_t kCodesMax = std::int64_t{1} << 28;  // bytes at once, where several products could wait

Tiles gradient_tiles(const Product& op) { return scaled_tiles_for(op.c, {}, {}, true); }

}  // namespace

void multiply_codes(const Product& op, const Codes& a, const Codes& b, Queue& queue) {
  const bool columns = op.b_scaling.width == 1;
  CHECK(!columns || b.scale_stride % 4 == 0, "scales of columns {} apart: bulk copies take whole chunks", b.scale_stride);
  with_scaled_tiles(scaled_tiles_for(op.c, op.bias, op.add, op.accumulate), [&](auto tiles) {
    ScaledSums<1> sums{};
    sums.a_width = 1;
    if (a.depth > 0) set_run<tiles()>(sums, 0, a, b);
    set_sum<tiles()>(sums, 0, op.c);
    if (tiles() != Tiles::ragged && op.add) sums.tiles.boxes_of_add = box_map(op.add, kGroupRows);
    sums.tiles.bias = op.bias, sums.tiles.add = op.add;
    sums.tiles.first_run[1] = 1;
    sums.tiles.count = 1, sums.tiles.accumulate = op.accumulate;
    launch_scaled<tiles()>(sums, columns, queue);
  });
}

void run_scaled(const Product& op, Queue& queue) {
  if (op.c.rows == 0 || op.c.cols == 0) return;
  if ((op.transpose_a ? op.a.rows : op.a.cols) == 0) return multiply_codes(op, {}, {}, queue);
  const Codes a = quantize({op.a}, op.a_scaling, op.transpose_a, queue).front();
  multiply_codes(op, a,
                 op.b_scales ? codes_of(op.b_turned, op.b_scales, op.b_scaling)
                             : quantize({op.b}, op.b_scaling, !op.transpose_b, queue).front(),
                 queue);
}

// The matrices of runs that have rows, one a run.
static std::vector<Codes> codes_of_matrices(const GroupedProduct& op, Queue& queue) {
  std::vector<Tensor> matrices;
  std::vector<Codes> codes;
  for (std::size_t run = 0; run < op.b.size(); ++run) {
    if (op.rows[run] == 0) continue;
    if (op.b_scales.empty())
      matrices.push_back(op.b[run]);
    else
      codes.push_back(codes_of(op.b_turned[run], op.b_scales[run], op.b_scaling));
  }
  return op.b_scales.empty() ? quantize(matrices, op.b_scaling, !op.transpose_b, queue) : codes;
}

// Runs that have rows, as many in a launch as it takes.
void run_scaled(const GroupedProduct& op, Queue& queue) {
  if (op.a.rows == 0 || op.c.cols == 0) return;
  CHECK(op.a_scaling.width == 1, "tiles of runs {} rows wide have no kernels for GPUs", op.a_scaling.width);
  const bool any = op.a.cols > 0;
  const Codes a = any ? quantize({op.a}, op.a_scaling, false, queue).front() : Codes{};
  const std::vector<Codes> b = any ? codes_of_matrices(op, queue) : std::vector<Codes>();
  const bool columns = op.b_scaling.width == 1;
  with_scaled_tiles(scaled_tiles_for(op.c, {}, {}, false), [&](auto tiles) {
    std::size_t next = 0;
    std::int64_t row = 0;
    for (std::size_t run = 0; run < op.rows.size();) {
      ScaledSums<kRunsMax> sums{};
      sums.a_width = 1, sums.tiles.one_a = true;
      for (int& s = sums.tiles.count; run < op.rows.size() && s < kRunsMax; row += op.rows[run++]) {
        if (op.rows[run] == 0) continue;
        if (any) set_run<tiles()>(sums, s, a, b[next++]);
        set_sum<tiles()>(sums, s, op.c.row_range(row, op.rows[run]));
        sums.tiles.first_row[s] = static_cast<int>(row);
        ++s, sums.tiles.first_run[s] = s;
      }
      launch_scaled<tiles()>(sums, columns, queue);
    }
  });
}

// Each run begins a tile of its own along k, as it would alone.
std::size_t run_gradients_scaled(const std::vector<const Product*>& products, Queue& queue) {
  const auto codes_of_both = [](const Product& op) { return op.a.elements() + op.b.elements(); };
  const Tiles kind = gradient_tiles(*products.front());
  std::int64_t size = codes_of_both(*products.front());
  std::size_t taken = 0;
  const std::vector<GradientSum> all = first_sums(products, kRunsMax, taken, [&](const Product& op) {
    size += codes_of_both(op);
    return size <= kCodesMax && gradient_tiles(op) == kind;
  });
  std::vector<Tensor> left, right;
  for (const GradientSum& sum : all)
    for (const Product* op : sum.runs) left.push_back(op->a), right.push_back(op->b);
  const std::vector<Codes> a = quantize(left, products.front()->a_scaling, true, queue);
  const std::vector<Codes> b = quantize(right, products.front()->b_scaling, true, queue);
  with_scaled_tiles(kind, [&](auto tiles) {
    ScaledSums<kRunsMax> sums{};
    sums.a_width = 1, sums.tiles.accumulate = true;
    for (std::size_t run = 0; run < taken; ++run)
      if (a[run].depth > 0) set_run<tiles()>(sums, static_cast<int>(run), a[run], b[run]);
    int run = 0;
    for (const GradientSum& sum : all) {
      int& count = sums.tiles.count;
      set_sum<tiles()>(sums, count, sum.c);
      run += static_cast<int>(sum.runs.size());
      sums.tiles.first_run[++count] = run;
    }
    launch_scaled<tiles()>(sums, true, queue);
  });
  return taken;
}

}  // namespace troupe::cuda
