// c_i += A_i^T B_i for neighbouring products of a segment, A_i (K, M) and B_i (K, N) bfloat16, c_i float32, in one launch.
// A sum's products, which follow each other (kernels/strand.h), are runs: its tiles are read once, add run after run, each
// padded with zeros to a block of 16, and are written once. So the bits are those of product_half.cu, one by one.
#include "kernels/cuda/gradient_sums.h"
#include "kernels/cuda/half_tile.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/product_scaled.h"
#include "kernels/cuda/product_wgmma.h"
#include "kernels/shapes.h"

namespace troupe::cuda {

namespace {

constexpr int kRunsMax = 32;              // of a launch: they travel as a kernel's parameter
constexpr std::size_t kTogetherMax = 64;  // looked at for a launch

struct Sums {
  HalfMatrix a[kRunsMax], b[kRunsMax];
  View c[kRunsMax];
  int first_run[kRunsMax + 1], first_tile[kRunsMax + 1];  // of each sum, and where the last ends
  int count = 0;
};

template <typename Tile>
__global__ __launch_bounds__(Tile::kThreads,
                             Tile::kBlocksAtOnce) void gradient_tiles(const __grid_constant__ Sums sums) {
  const int block = static_cast<int>(blockIdx.x);
  int sum = 0;
  while (sums.first_tile[sum + 1] <= block) ++sum;
  const View c = sums.c[sum];
  const auto tiles = [](std::int64_t count, int size) { return static_cast<int>((count + size - 1) / size); };
  const TilePlace place =
      place_of_tile(block - sums.first_tile[sum], tiles(c.rows, Tile::kRows), tiles(c.cols, Tile::kColumns));
  Tile tile(std::int64_t{place.row} * Tile::kRows, std::int64_t{place.column} * Tile::kColumns);
  tile.start_from(c);
  for (int run = sums.first_run[sum]; run < sums.first_run[sum + 1]; ++run)
    tile.multiply(sums.a[run], sums.b[run], sums.a[run].rows);
  tile.finish(c, View(), View());
}

const Product* gradient_of(const Op& op) {
  const auto* one = std::get_if<Product>(&op);
  if (one == nullptr || !one->transpose_a || one->transpose_b || !one->accumulate) return nullptr;
  if (one->bias || one->add) return nullptr;
  if (one->a_scaling) return one->a_scaling.width == 1 && one->b_scaling.width == 1 ? one : nullptr;
  if (one->a.dtype != Dtype::bf16 || one->b.dtype != Dtype::bf16) return nullptr;
  if (!rows_aligned(one->a) || !rows_aligned(one->b)) return nullptr;
  return one;
}

bool go_together(const Product& one, const Product& other) {
  return one.a_scaling == other.a_scaling && one.b_scaling == other.b_scaling && takes_wgmma(one) == takes_wgmma(other);
}

template <int columns>
void launch_sums(const std::vector<GradientSum>& all, Queue& queue) {
  using Tile = HalfTile<true, false, columns, true>;
  Sums sums{};
  int run = 0;
  for (const GradientSum& sum : all) {
    const int s = sums.count++;
    sums.c[s] = sum.c;
    for (const Product* op : sum.runs) sums.a[run] = op->a, sums.b[run++] = op->b;
    sums.first_run[s + 1] = run;
    sums.first_tile[s + 1] = sums.first_tile[s] + static_cast<int>(blocks_for(sum.c.rows, Tile::kRows) *
                                                                   blocks_for(sum.c.cols, Tile::kColumns));
  }
  launch(queue, static_cast<unsigned>(sums.first_tile[sums.count]), Tile::kThreads, Tile::kSharedBytes,
         gradient_tiles<Tile>, sums);
}

}  // namespace

std::size_t run_weight_gradients(const std::vector<const Op*>& ops, std::size_t first, Queue& queue) {
  std::vector<const Product*> products;
  for (std::size_t op = first; op < ops.size() && products.size() < kTogetherMax; ++op) {
    const Product* product = gradient_of(*ops[op]);
    if (product == nullptr) break;
    if (!products.empty() && !go_together(*product, *products.front())) break;
    check(*ops[op]);
    products.push_back(product);
  }
  if (products.empty()) return 0;
  if (products.front()->a_scaling) return run_gradients_scaled(products, queue);
  if (queue.warpgroups() && takes_wgmma(*products.front())) return run_gradients_wgmma(products, queue);
  const int columns = tile_columns(products.front()->c.cols);
  std::size_t taken = 0;
  const std::vector<GradientSum> sums =
      first_sums(products, kRunsMax, taken, [&](const Product& op) { return tile_columns(op.c.cols) == columns; });
  with_tile_columns(products.front()->c.cols,
                    [&](auto tile) { launch_sums<decltype(tile)::kValue>(sums, queue); });
  return taken;
}

}  // namespace troupe::cuda
