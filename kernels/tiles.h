// Tiles of a scaled operand: how they lie on a tensor.
#pragma once

#include "kernels/op.h"

namespace troupe {

struct TileShape {
  std::int64_t rows, cols;
};
// down: the tiles' depth goes down a column.
constexpr TileShape tile_shape(const Scaling& scaling, bool down) {
  return down ? TileShape{kScaledDepth, scaling.width} : TileShape{scaling.width, kScaledDepth};
}
constexpr std::int64_t tiles_count(std::int64_t elements, std::int64_t tile) { return (elements + tile - 1) / tile; }

}  // namespace troupe
