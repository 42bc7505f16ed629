// Rows that move: Gather out[j] = source[index[j]]; Scatter out[index[j]] = source[j]; Combine sums expert rows back:
// out[t] = add0[t] + add1[t] + sum_k weight[t,k] row(position[t,k]), left to right, one fused multiply-add per k, f32.
// ScaleRows: out[t,:] = x[t,:] scale[t]. Outputs are assigned and rounded once. Bits and order are the CPU's; each row
// that is named is read once, out is written once.
#include <algorithm>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/move.h"
#include "kernels/cuda/quads.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kScaleQuads = 4, kCombineQuads = 2;
constexpr int kPieces = 64;     // that travel with a launch; a table in memory holds what is more
constexpr int kSlots = 8;       // of a row that are found before their rows are read
constexpr int kSlotsAhead = 4;  // rows that a thread reads at once
constexpr int kRowsMax = Sheet<kCombineQuads>::kThreads / Sheet<kCombineQuads>::kWarpLanes;

// A piece of the sorted rows, from place `begin` on.
struct Piece {
  char* data;
  std::int64_t begin, stride_bytes;
  bool wide;
};
struct Pieces {
  Piece list[kPieces];
  const Piece* more;  // the (kPieces + 1)-th and on
  int count;
  std::int64_t rows;
};
// A slot's row and its weight.
struct Slot {
  const char* row;
  float weight;
  bool wide;
};

__device__ Piece piece_at(const Pieces& pieces, int i) {
  return i < kPieces ? pieces.list[i] : pieces.more[i - kPieces];
}

__device__ Slot find(const Pieces& pieces, std::int64_t place, float weight) {
  insist(place >= 0 && place < pieces.rows);
  int low = 0, high = pieces.count - 1;  // the last that begins at or before the place
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (piece_at(pieces, middle).begin <= place)
      low = middle;
    else
      high = middle - 1;
  }
  const Piece piece = piece_at(pieces, low);
  return {piece.data + (place - piece.begin) * piece.stride_bytes, weight, piece.wide};
}

// A thread's quads of add0[t] and add1[t]: on their way while the slots are found.
template <bool whole>
struct Start {
  uint4 first[kCombineQuads] = {}, second[kCombineQuads] = {};

  __device__ void read(const View& add0, const View& add1, std::int64_t t, std::int64_t col, std::int64_t step) {
    for (int i = 0; i < kCombineQuads; ++i) {
      if (add0) first[i] = fetch<whole>(add0, t, col + i * step);
      if (add1) second[i] = fetch<whole>(add1, t, col + i * step);
    }
  }
  __device__ float4 sum_of(const View& add0, const View& add1, int i) const {
    const float4 start = add0 ? floats(add0, first[i]) : make_float4(0, 0, 0, 0);
    return add1 ? sum(start, floats(add1, second[i])) : start;
  }
};

// A quad of a row on its way: of whole bfloat16 rows half as many registers.
struct HalfQuad {
  uint2 bits;
  __device__ void read(const Slot& slot, std::int64_t cols, std::int64_t col) {
    bits = col < cols ? *reinterpret_cast<const uint2*>(slot.row + col * 2) : make_uint2(0, 0);
  }
  __device__ float4 value(const Slot&) const { return widen(bits); }
};
template <bool whole>
struct AnyQuad {
  uint4 bits;
  __device__ void read(const Slot& slot, std::int64_t cols, std::int64_t col) {
    bits = fetch<whole>(slot.row, slot.wide, cols, col);
  }
  __device__ float4 value(const Slot& slot) const { return floats(slot.wide, bits); }
};

// sums += weight * row for slots first .. first + kSlotsAhead - 1 of `count`, in order; `begin` sets the sums once the
// rows are on their way.
template <typename Quad, typename Begin>
__device__ void add_slots(float4 (&sums)[kCombineQuads], const Slot* slots, int first, int count, std::int64_t cols,
                          std::int64_t col, std::int64_t step, Begin begin) {
  Quad quads[kSlotsAhead][kCombineQuads];
  for (int k = 0; k < kSlotsAhead; ++k)
    for (int i = 0; i < kCombineQuads; ++i)
      if (first + k < count) quads[k][i].read(slots[first + k], cols, col + i * step);
  begin();
  for (int k = 0; k < kSlotsAhead; ++k)
    for (int i = 0; i < kCombineQuads; ++i) {
      if (first + k >= count) continue;
      const float w = slots[first + k].weight;
      sums[i] = add_products(sums[i], make_float4(w, w, w, w), quads[k][i].value(slots[first + k]));
    }
}

template <bool whole, typename Quad>
__global__ void __launch_bounds__(Sheet<kCombineQuads>::kThreads)
    combine(const __grid_constant__ Pieces pieces, View position, View weight, View add0, View add1, View out,
            Sheet<kCombineQuads> sheet) {
  __shared__ Slot table[kRowsMax][kSlots];
  const std::int64_t t = sheet.row(), col = sheet.col(0), step = sheet.step();
  const bool inside = t < sheet.rows;
  float4 sums[kCombineQuads] = {};
  Start<whole> start;
  if (inside) start.read(add0, add1, t, col, step);
  const auto begin = [&] {
    for (int i = 0; i < kCombineQuads; ++i) sums[i] = start.sum_of(add0, add1, i);
  };
  if (position.cols == 0) begin();
  for (std::int64_t first = 0; first < position.cols; first += kSlots) {
    const int count = static_cast<int>(min(position.cols - first, std::int64_t{kSlots}));
    __syncthreads();
    if (inside && static_cast<int>(threadIdx.x) < count) {
      const std::int64_t k = first + threadIdx.x;
      table[threadIdx.y][threadIdx.x] =
          find(pieces, *position.at<const std::int32_t>(t, k), weight ? *weight.at<const float>(t, k) : 1.0F);
    }
    __syncthreads();
    if (inside)
      for (int k = 0; k < count; k += kSlotsAhead)
        add_slots<Quad>(sums, table[threadIdx.y], k, count, out.cols, col, step, [&] {
          if (first + k == 0) begin();
        });
  }
  if (inside)
    for (int i = 0; i < kCombineQuads; ++i) store<whole>(out, t, col + i * step, sums[i]);
}

__global__ void keep_pieces(const __grid_constant__ Pieces pieces, Piece* table) {
  if (static_cast<int>(threadIdx.x) < pieces.count) table[threadIdx.x] = pieces.list[threadIdx.x];
}

// The first pieces in the launch itself; those beyond go to working memory, kPieces a launch.
Pieces pieces_of(const Combine& op, Queue& queue) {
  Pieces all{};
  std::vector<Piece> more;
  for (const Tensor& t : op.pieces) {
    if (!t) continue;
    const Piece piece{static_cast<char*>(t.data), all.rows, t.stride * static_cast<std::int64_t>(bytes_of(t.dtype)),
                      t.dtype == Dtype::f32};
    if (all.count < kPieces)
      all.list[all.count] = piece;
    else
      more.push_back(piece);
    ++all.count;
    all.rows += t.rows;
  }
  if (more.empty()) return all;
  auto* table = queue.take<Piece>(static_cast<std::int64_t>(more.size()));
  for (std::size_t begin = 0; begin < more.size(); begin += kPieces) {
    Pieces part{};
    part.count = static_cast<int>(std::min(more.size() - begin, std::size_t{kPieces}));
    std::copy_n(more.data() + begin, part.count, part.list);
    launch(queue, 1, kPieces, 0, keep_pieces, part, table + begin);
  }
  all.more = table;
  return all;
}

template <bool whole>
__global__ void scale_quads(View x, View scale, View out, Sheet<kScaleQuads> sheet) {
  const std::int64_t t = sheet.row();
  if (t >= sheet.rows) return;
  uint4 bits[kScaleQuads];
  for (int i = 0; i < kScaleQuads; ++i) bits[i] = fetch<whole>(x, t, sheet.col(i));
  const float by = *scale.at<const float>(t, 0);
  for (int i = 0; i < kScaleQuads; ++i) {
    const float4 v = floats(x, bits[i]);
    store<whole>(out, t, sheet.col(i), make_float4(v.x * by, v.y * by, v.z * by, v.w * by));
  }
}

}  // namespace

void run(const Gather& op, Queue& queue) { move_rows(op.source, op.index, op.out, Move::gather, queue); }

void run(const Scatter& op, Queue& queue) { move_rows(op.source, op.index, op.out, Move::scatter, queue); }

void run(const Combine& op, Queue& queue) {
  const Sheet<kCombineQuads> sheet(op.out.rows, op.out.cols);
  bool whole = whole_quads(View(op.out), View(op.add0), View(op.add1));
  bool halves = true;
  for (const Tensor& piece : op.pieces) {
    whole = whole && whole_quads(View(piece));
    halves = halves && (!piece || piece.dtype == Dtype::bf16);
  }
  const auto kernel = !whole   ? combine<false, AnyQuad<false>>
                      : halves ? combine<true, HalfQuad>
                               : combine<true, AnyQuad<true>>;
  launch(queue, sheet.blocks(), sheet.threads(), 0, kernel, pieces_of(op, queue), op.position, op.weight, op.add0,
         op.add1, op.out, sheet);
}

void run(const ScaleRows& op, Queue& queue) {
  const Sheet<kScaleQuads> sheet(op.out.rows, op.out.cols);
  const View x = op.x, out = op.out;
  launch(queue, sheet.blocks(), sheet.threads(), 0, whole_quads(x, out) ? scale_quads<true> : scale_quads<false>, x,
         op.scale, out, sheet);
}

}  // namespace troupe::cuda
