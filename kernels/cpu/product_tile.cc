// The register tile. Every element is one chain of fused multiply-adds in increasing depth.
// While it computes, a tile asks for the lines that somebody needs next: operands that come from afar then cost no time.
#include <array>
#include <utility>

#include "kernels/cpu/product.h"

namespace troupe::cpu {

namespace {

template <int rows, int vectors>
void tile_of(std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step, bool from_c, Ahead ahead) {
  Vec sum[rows][vectors];
#pragma GCC unroll 24
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sum[r][v] = from_c ? load(c + r * c_step + v * kLanes) : Vec{};
  const float *a = left.data, *b = right.data;
  for (std::int64_t k = 0; k < depth; ++k) {
    __builtin_prefetch(ahead.line(k), 0, 2);
    prefetch_to_write(ahead.sums + ((k & 31) >> 1) * ahead.sums_step + ((k & 1) << 6));
    Vec row[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 24
    for (int r = 0; r < rows; ++r) {
      const Vec element = broadcast(a[r * left.row_step]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sum[r][v] = fused(element, row[v], sum[r][v]);
    }
    a += left.depth_step;
    b += right.depth_step;
  }
#pragma GCC unroll 24
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(c + r * c_step + v * kLanes, sum[r][v]);
}

using Tile = void (*)(std::int64_t, Left, Right, float*, std::int64_t, bool, Ahead);
template <int vectors, int... less>
constexpr std::array<Tile, sizeof...(less)> tiles_of(std::integer_sequence<int, less...>) {
  return {tile_of<less + 1, vectors>...};
}

}  // namespace

void tile(int rows, int vectors, std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step, bool from_c,
          Ahead ahead) {
  if (ahead.at == nullptr) ahead.at = reinterpret_cast<const char*>(right.data), ahead.row_step = ahead.shift = 0;
  if (ahead.sums == nullptr) ahead.sums = reinterpret_cast<const char*>(c), ahead.sums_step = 0;
  if (rows == 1 && vectors == 8) return tile_of<1, 8>(depth, left, right, c, c_step, from_c, ahead);
  if (rows == 2 && vectors == 4) return tile_of<2, 4>(depth, left, right, c, c_step, from_c, ahead);
  static constexpr auto kTall = tiles_of<1>(std::make_integer_sequence<int, 2 * kTileRows>());
  static constexpr auto kTiles = tiles_of<2>(std::make_integer_sequence<int, kTileRows>());
  const auto place = static_cast<std::size_t>(rows - 1);
  (vectors == 1 ? kTall[place] : kTiles[place])(depth, left, right, c, c_step, from_c, ahead);
}

}  // namespace troupe::cpu
