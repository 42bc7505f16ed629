// The dispatch plan: which sorted rows go to which expert shard, in chunks of bounded size. A pure function of counts.
#pragma once

#include <cstdint>

#include "actors/config.h"
#include "kernels/base/recycled.h"

namespace troupe {

struct DispatchChunk {
  int shard = 0, chunk = 0;
  bool last = false;                     // the shard's last chunk of this microbatch and layer
  std::int64_t row_begin = 0, rows = 0;  // within the rows sorted by (expert, token)
  RecycledVector<std::int32_t> counts;   // of the shard's experts, in order
};

// An expert's rows may be cut between chunks after a multiple of this many, counted from its first row in the microbatch:
// where its weight gradient's sum may be cut. In FP8 that is between two tiles, in bfloat16 on a GPU between two blocks
// (Scaling and kTensorCoreDepth in kernels/op.h).
std::int64_t rows_together(const Config& config);

// counts: rows of each of the model's experts. Every shard gets at least one chunk, maybe an empty one; chunks stand in
// row order. An expert's rows may be cut between chunks: its sum over rows continues in the next.
RecycledVector<DispatchChunk> plan_dispatch(const Config& config, const std::int32_t* counts);

// The most chunks that `rows` rows of one shard can make.
std::int64_t chunks_max(const Config& config, std::int64_t rows);

}  // namespace troupe
