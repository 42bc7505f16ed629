// What the two forms of attention share: queries in tiles over packed keys (attention.cc), and single query rows over keys
// where they stand (attention_row.cc). Both give a row the same bits.
#pragma once

#include "kernels/cpu/product.h"

namespace troupe::cpu {

// One row's scores to exp(scale * score - highest); notes the highest and 1 / sum in row_max and row_scale of (row, head)
// and returns 1 / sum. Whole vectors: what stands behind the row's own `count` keys is computed and never read.
inline float soften(const Attention& op, float* scores, std::int64_t count, std::int64_t row, int head) {
  const std::int64_t whole = round_up(count, kLanes);
  const float scale = op.scale;
  map(
      whole, scores, [=](Vec score) { return score * scale; }, scores);
  const float highest = maximum(scores, count);
  map(
      whole, scores, [=](Vec score) { return exponential(score - highest); }, scores);
  op.row_max.row<float>(row)[head] = highest;
  return op.row_scale.row<float>(row)[head] = 1.0F / sum(scores, count);
}

// For spans that have one query row each, as in decoding. False, and nothing was done: another span has more rows, or too
// many query heads share a key head. REQUIRES: the op's shapes were checked.
bool attend_single_rows(const Attention& op, Scratch& scratch);

}  // namespace troupe::cpu
