// The matrix engine under Product and Attention: a register tile and the packing of its right operand.
// A tile adds, for up to kTileRows rows and one panel of columns, a chain of fused multiply-adds in increasing depth to
// zero or to what stands in c: stopping a chain in memory and going on later changes no bit.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

constexpr int kTileRows = kLanes == 16 ? 12 : 6;  // rows x 2 vectors fill the registers
constexpr int kPanelCols = 2 * kLanes;

constexpr std::int64_t round_up(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit * unit; }

// The left operand of a tile: element (r, k) is data[r * row_step + k * depth_step].
struct Left {
  const float* data;
  std::int64_t row_step, depth_step;
};
// The right operand: element (k, j) is data[k * depth_step + j].
struct Right {
  const float* data;
  std::int64_t depth_step;
};

// c[r, j] = (from_c ? c[r, j] : 0) + sum_k left(r, k) right(k, j), j < vectors * kLanes.
// vectors: 2, and for one or two rows, whose chains are too few to hide the latency of an FMA, also 8 and 4.
void tile(int rows, int vectors, std::int64_t depth, Left left, Right right, float* c, std::int64_t c_step,
          bool from_c);

// panel[k * width + j] = b(k, j), or b(j, k) of a transposed b; zero for j beyond b. b: f32 or bf16.
void pack_panel(const Tensor& b, std::int64_t width, float* panel);
void pack_panel_transposed(const Tensor& b, std::int64_t width, float* panel);

}  // namespace troupe::cpu
