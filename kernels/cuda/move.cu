// One read of the source's rows, one write of out's. Rows of one type move as bits, bfloat16 two by two where it can.
#include "kernels/cuda/move.h"

#include "kernels/cuda/quads.h"
#include "kernels/cuda/threads.h"

namespace troupe::cuda {

namespace {

constexpr int kQuads = 4;

template <bool whole>
__global__ void move_quads(View source, View index, View out, Move move, Sheet<kQuads> sheet) {
  const std::int64_t j = sheet.row();
  if (j >= sheet.rows) return;
  const std::int64_t named = move == Move::straight ? j : *index.at<const std::int32_t>(j, 0);
  const std::int64_t from = move == Move::scatter ? j : named, to = move == Move::scatter ? named : j;
  const bool nothing = move == Move::look_up && from < 0;
  insist(nothing || (from >= 0 && from < source.rows && to >= 0 && to < out.rows));
  uint4 bits[kQuads] = {};
  if (!nothing)
    for (int i = 0; i < kQuads; ++i) bits[i] = fetch<whole>(source, from, sheet.col(i));
  const bool same = source.dtype == out.dtype;
  for (int i = 0; i < kQuads; ++i)
    store_bits<whole>(out, to, sheet.col(i), same ? bits[i] : bits_of(is_wide(out), floats(source, bits[i])));
}

// The same memory as words of four bytes.
Tensor words(const Tensor& x) {
  const auto size = static_cast<std::int64_t>(bytes_of(x.dtype));
  return {x.data, x.rows, x.cols * size / 4, x.stride * size / 4, Dtype::f32};
}
bool is_words(const Tensor& x) {
  const auto size = static_cast<std::int64_t>(bytes_of(x.dtype));
  return reinterpret_cast<std::uintptr_t>(x.data) % 4 == 0 && x.cols * size % 4 == 0 && x.stride * size % 4 == 0;
}

}  // namespace

void move_rows(Tensor source, const Tensor& index, Tensor out, Move move, Queue& queue) {
  if (source.dtype == out.dtype && is_words(source) && is_words(out)) {
    source = words(source);
    out = words(out);
  }
  if (move == Move::straight) flatten(source, out);
  const Sheet<kQuads> sheet(move == Move::scatter ? source.rows : out.rows, out.cols);
  const View from = source, to = out;
  launch(queue, sheet.blocks(), sheet.threads(), 0, whole_quads(from, to) ? move_quads<true> : move_quads<false>, from,
         index, to, move, sheet);
}

}  // namespace troupe::cuda
