// The register tile. Every element is one chain of fused multiply-adds in increasing depth.
// While it computes, a tile asks for the lines that somebody needs next: operands that come from afar then cost no time.
#include <algorithm>
#include <array>
#include <utility>

#include "kernels/cpu/product.h"

namespace troupe::cpu {

namespace {

// Rows are addressed from every third one, by a step and by twice the step: so few registers hold all of them.
template <int rows>
struct Rows {
  static constexpr int kBases = (rows + 2) / 3;
  const char* base[kBases];
  std::int64_t step, depth_step;

  explicit Rows(Left left)
      : step(left.row_step * static_cast<std::int64_t>(sizeof(float))),
        depth_step(left.depth_step * static_cast<std::int64_t>(sizeof(float))) {
    for (int i = 0; i < kBases; ++i) base[i] = reinterpret_cast<const char*>(left.data) + 3 * i * step;
  }
  [[gnu::always_inline]] float at(int r) const {
    float element;
    std::memcpy(&element, base[r / 3] + (r % 3) * step, sizeof element);
    return element;
  }
  [[gnu::always_inline]] void next() {
#pragma GCC unroll 8
    for (const char*& one : base) {
      one += depth_step;
      asm("" : "+r"(one));  // the compiler would keep twelve offsets instead, in memory
    }
  }
};

// The sums' lines that come with one of `groups` groups.
struct SumLines {
  const Ahead& ahead;
  int rows, line = 0;
  void fetch(std::int64_t groups) {
    if (ahead.sums == nullptr) return;
    const int end = std::min<int>(2 * rows, line + static_cast<int>((2 * rows + groups - 1) / groups));
    for (; line < end; ++line) prefetch_to_write(ahead.sums + (line >> 1) * ahead.sums_step + ((line & 1) << 6));
  }
};

template <int rows, int vectors>
void tile_of(std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step, bool from_c,
             const Ahead& ahead) {
  Vec sum[rows][vectors];
#pragma GCC unroll 24
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sum[r][v] = from_c ? load(c + r * c_step + v * kLanes) : Vec{};
  Rows<rows> a(left);
  SumLines sums{ahead, rows};
  const float* b = right.data;
  const char* group = ahead.at;
  for (std::int64_t begin = 0; begin < depth; begin += ahead.group, group += ahead.group_step) {
    sums.fetch((depth + ahead.group - 1) / ahead.group);
    const char* line = group;
    for (std::int64_t k = std::min(ahead.group, depth - begin); k > 0; --k, line += ahead.step) {
      __builtin_prefetch(line, 0, 2);
      Vec row[vectors];
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 24
      for (int r = 0; r < rows; ++r) {
        const Vec element = broadcast(a.at(r));
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[r][v] = fused(element, row[v], sum[r][v]);
      }
      a.next();
      b += right.depth_step;
    }
  }
#pragma GCC unroll 24
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) store(c + r * c_step + v * kLanes, sum[r][v]);
}

using Tile = void (*)(std::int64_t, Left, Right, float*, std::int64_t, bool, const Ahead&);
template <int vectors, int... less>
constexpr std::array<Tile, sizeof...(less)> tiles_of(std::integer_sequence<int, less...>) {
  return {tile_of<less + 1, vectors>...};
}

}  // namespace

void tile(int rows, int vectors, std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step, bool from_c,
          Ahead ahead) {
  if (ahead.at == nullptr) ahead.at = reinterpret_cast<const char*>(right.data), ahead.step = ahead.group_step = 0;
  if (rows == 1 && vectors == 8) return tile_of<1, 8>(depth, left, right, c, c_step, from_c, ahead);
  if (rows == 2 && vectors == 4) return tile_of<2, 4>(depth, left, right, c, c_step, from_c, ahead);
  static constexpr auto kTall = tiles_of<1>(std::make_integer_sequence<int, 2 * kTileRows>());
  static constexpr auto kTiles = tiles_of<2>(std::make_integer_sequence<int, kTileRows>());
  const auto place = static_cast<std::size_t>(rows - 1);
  (vectors == 1 ? kTall[place] : kTiles[place])(depth, left, right, c, c_step, from_c, ahead);
}

}  // namespace troupe::cpu
