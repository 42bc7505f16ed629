// Tiles of a tensor as numbers that E4M3 has, and their scales: the rounding of scaled products.
// The law: x[i,j] becomes e4m3(x[i,j] / scale of its tile), whatever stands beside the tile.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/tiles.h"

namespace troupe::cpu {

// values[i * stride + j] = the code of x[i,j] as float32; scales: row by row, one a tile. x: f32 or bf16.
// room: x.cols floats.
void quantize(const Tensor& x, TileShape tile, float floor, float* values, std::int64_t stride, float* scales,
              float* room);

// values[i * stride + j] = the number that codes[i,j] stands for.
void read_codes(const Tensor& codes, float* values, std::int64_t stride);

}  // namespace troupe::cpu
