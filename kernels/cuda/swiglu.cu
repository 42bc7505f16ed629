// h = silu(gate) up, silu(z) = z sigmoid(z); gate_up = [gate | up]: (N, 2I), h, dh: (N, I).
//   d = dh row_scale;  d_up = d silu(gate);  d_gate = d up s (1 + gate (1 - s)), s = sigmoid(gate)
//   dots[t] = sum_i dh[t,i] h[t,i], in lanes (lanes.h), with dh before the scale.
// Outputs are assigned. d_gate_up may be gate_up: a thread reads its quads before it writes them. Bits and order are the
// CPU's; every operand is moved once.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/lanes.h"
#include "kernels/cuda/quads.h"

namespace troupe::cuda {

namespace {

constexpr int kQuads = 2;
constexpr int kDotColumns = 32 * 4 * kQuads, kDotRows = 8;  // of a row with dots, at a time; rows of a block

__device__ float silu(float gate) { return gate * sigmoid(gate); }

template <bool whole>
__global__ void swiglu(View gate, View up, View h, Sheet<kQuads> sheet) {
  const std::int64_t t = sheet.row();
  if (t >= sheet.rows) return;
  uint4 gates[kQuads], ups[kQuads];
  for (int i = 0; i < kQuads; ++i) {
    gates[i] = fetch<whole>(gate, t, sheet.col(i));
    ups[i] = fetch<whole>(up, t, sheet.col(i));
  }
  for (int i = 0; i < kQuads; ++i) {
    const float4 g = floats(gate, gates[i]), u = floats(up, ups[i]);
    store<whole>(h, t, sheet.col(i), make_float4(silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w));
  }
}

struct Slopes {
  View gate, up, dh, d_gate, d_up, row_scale, dots;
};

// One element's slopes; h, what the forward gave.
struct Element {
  float d_gate, d_up, h;
};
__device__ Element slope(float gate, float up, float dh, float scale) {
  const float s = sigmoid(gate), a = gate * s;
  return {dh * scale * up * (s * (1.0F + gate * (1.0F - s))), dh * scale * a, a * up};
}

// A thread's quads at columns first, first + step, ...; their h and dh go to memory where that is wanted.
template <bool whole>
__device__ void slope_quads(const Slopes& op, std::int64_t t, std::int64_t first, std::int64_t step, float* h_row,
                            float* dh_row) {
  uint4 gates[kQuads], ups[kQuads], dhs[kQuads];
  for (int i = 0; i < kQuads; ++i) {
    gates[i] = fetch<whole>(op.gate, t, first + i * step);
    ups[i] = fetch<whole>(op.up, t, first + i * step);
    dhs[i] = fetch<whole>(op.dh, t, first + i * step);
  }
  const float scale = op.row_scale ? *op.row_scale.at<const float>(t, 0) : 1.0F;
  for (int i = 0; i < kQuads; ++i) {
    const float4 g = floats(op.gate, gates[i]), u = floats(op.up, ups[i]), d = floats(op.dh, dhs[i]);
    const Element x = slope(g.x, u.x, d.x, scale), y = slope(g.y, u.y, d.y, scale), z = slope(g.z, u.z, d.z, scale),
                  w = slope(g.w, u.w, d.w, scale);
    store<whole>(op.d_gate, t, first + i * step, make_float4(x.d_gate, y.d_gate, z.d_gate, w.d_gate));
    store<whole>(op.d_up, t, first + i * step, make_float4(x.d_up, y.d_up, z.d_up, w.d_up));
    if (h_row == nullptr) continue;
    *reinterpret_cast<float4*>(h_row + i * step) = make_float4(x.h, y.h, z.h, w.h);
    *reinterpret_cast<float4*>(dh_row + i * step) = d;
  }
}

template <bool whole>
__global__ void swiglu_slopes(const __grid_constant__ Slopes op, Sheet<kQuads> sheet) {
  const std::int64_t t = sheet.row();
  if (t < sheet.rows) slope_quads<whole>(op, t, sheet.col(0), sheet.step(), nullptr, nullptr);
}

// A warp a row, kDotColumns of it at a time: all lanes work out the slopes, sixteen of them add products.
template <bool whole>
__global__ void __launch_bounds__(32 * kDotRows, 4) swiglu_slopes_and_dots(const __grid_constant__ Slopes op) {
  __shared__ float4 h[kDotRows][kDotColumns / 4], dh[kDotRows][kDotColumns / 4];
  const int row = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, own = lane * 4;
  const std::int64_t t = std::int64_t{blockIdx.x} * kDotRows + row, width = op.dh.cols;
  if (t >= op.dh.rows) return;
  auto *h_row = reinterpret_cast<float*>(h[row]), *dh_row = reinterpret_cast<float*>(dh[row]);
  float sum = 0;
  for (std::int64_t begin = 0; begin < width; begin += kDotColumns) {
    slope_quads<whole>(op, t, begin + own, kDotColumns / kQuads, h_row + own, dh_row + own);
    __syncwarp();
    sum = add_products(sum, dh_row, h_row, static_cast<int>(min(width - begin, std::int64_t{kDotColumns})), lane);
    __syncwarp();
  }
  sum = fold_lanes(sum);
  if (lane == 0) *op.dots.at<float>(t, 0) = sum;
}

}  // namespace

void run(const SwiGlu& op, Queue& queue) {
  const std::int64_t width = op.h.cols;
  const Sheet<kQuads> sheet(op.h.rows, width);
  const View gate = op.gate_up.columns(0, width), up = op.gate_up.columns(width, width), h = op.h;
  launch(queue, sheet.blocks(), sheet.threads(), 0, whole_quads(gate, up, h) ? swiglu<true> : swiglu<false>, gate, up,
         h, sheet);
}

void run(const SwiGluBackward& op, Queue& queue) {
  const std::int64_t width = op.dh.cols;
  const Slopes all{op.gate_up.columns(0, width),
                   op.gate_up.columns(width, width),
                   op.dh,
                   op.d_gate_up.columns(0, width),
                   op.d_gate_up.columns(width, width),
                   op.row_scale,
                   op.dots};
  const bool whole = whole_quads(all.gate, all.up, all.dh, all.d_gate, all.d_up);
  const Sheet<kQuads> sheet(op.dh.rows, width);
  if (op.dots)
    launch(queue, blocks_for(op.dh.rows, kDotRows), 32 * kDotRows, 0,
           whole ? swiglu_slopes_and_dots<true> : swiglu_slopes_and_dots<false>, all);
  else
    launch(queue, sheet.blocks(), sheet.threads(), 0, whole ? swiglu_slopes<true> : swiglu_slopes<false>, all, sheet);
}

}  // namespace troupe::cuda
