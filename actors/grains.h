// What an actor's ops read and write, seen as tensors; and elementwise work on an owner's arenas, cut into segments
// that any compute thread may take.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "messages/payload.h"

namespace troupe {

constexpr std::int64_t kPieceElements = 64 * 1024;  // grain of elementwise segments
// Of much there are larger pieces: no more than kPiecesEnough, as long as none is larger than kPieceElementsMax.
constexpr std::int64_t kPiecesEnough = 16, kPieceElementsMax = 1024 * 1024;
inline std::int64_t piece_of(std::int64_t elements) {
  const std::int64_t grains = (elements + kPiecesEnough * kPieceElements - 1) / (kPiecesEnough * kPieceElements);
  return std::clamp(grains * kPieceElements, kPieceElements, kPieceElementsMax);
}

inline float* floats(const Memory& memory) { return static_cast<float*>(memory.data); }
// A run of elements as one row.
inline Tensor flat(float* data, std::int64_t begin, std::int64_t count) {
  return {data + begin, 1, count, count, Dtype::f32};
}
inline Tensor halves(const Memory& memory, std::int64_t begin, std::int64_t count) {
  return {static_cast<std::uint16_t*>(memory.data) + begin, 1, count, count, Dtype::bf16};
}
// A payload, from its beginning.
inline Tensor tensor_of(const Payload& payload, std::int64_t rows, std::int64_t cols, Dtype dtype = Dtype::f32) {
  return {payload.data.get(), rows, cols, cols, dtype};
}

// Independent ops gathered into segments of about kPieceElements elements.
class Grains {
 public:
  // The segment for ops on the next `elements`.
  Ops& next(std::int64_t elements) {
    if (segments_.empty() || elements_ > kPieceElements) {
      segments_.emplace_back();
      elements_ = 0;
    }
    elements_ += elements;
    return segments_.back();
  }
  std::vector<Ops> take() { return std::move(segments_); }

 private:
  std::vector<Ops> segments_;
  std::int64_t elements_ = 0;
};

// each(begin, count) for every piece of `elements`.
template <typename Each>
void each_piece(std::int64_t elements, Each each) {
  const std::int64_t piece = piece_of(elements);
  for (std::int64_t begin = 0; begin < elements; begin += piece) each(begin, std::min(piece, elements - begin));
}

// make_op(begin, count), a segment for every piece of `elements`.
template <typename MakeOp>
std::vector<Ops> by_piece(std::int64_t elements, MakeOp make_op) {
  std::vector<Ops> work;
  each_piece(elements, [&](std::int64_t begin, std::int64_t count) { work.push_back({make_op(begin, count)}); });
  return work;
}

}  // namespace troupe
