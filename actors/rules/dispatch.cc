#include "actors/rules/dispatch.h"

#include <algorithm>

#include "actors/rules/placement.h"
#include "kernels/op.h"

namespace troupe {

std::int64_t rows_together(const Config& config) {
  if (config.is_fp8()) return kScaledDepth;
  return config.device.kind == "cuda" && config.is_mixed() ? kTensorCoreDepth : 1;
}

// A chunk that isn't full was closed because the next expert's rows, more than the room left, may not be cut there. They
// begin the chunk behind it, so any two neighbours hold more than a full one.
std::int64_t chunks_max(const Config& config, std::int64_t rows) {
  const std::int64_t room = config.layout.chunk_rows_max;
  return rows_together(config) == 1 ? std::max<std::int64_t>(1, (rows + room - 1) / room) : 2 * (rows / (room + 1)) + 1;
}

RecycledVector<DispatchChunk> plan_dispatch(const Config& config, const std::int32_t* counts) {
  RecycledVector<DispatchChunk> chunks;
  const std::int64_t room = config.layout.chunk_rows_max, together = rows_together(config);
  CHECK(room >= together, "chunks of {} rows, of which {} stay together", room, together);
  std::int64_t row = 0;
  for (int shard = 0; shard < config.layout.expert_shards; ++shard) {
    const ExpertRange range = experts_of(config, shard);
    const auto experts = static_cast<std::size_t>(range.end - range.begin);
    DispatchChunk chunk{shard, 0, false, row, 0, RecycledVector<std::int32_t>(experts, 0)};
    for (int e = range.begin; e < range.end; ++e) {
      std::int64_t left = counts[e];
      while (left > 0) {
        std::int64_t taken = std::min(left, room - chunk.rows);
        if (taken < left) taken -= taken % together;
        if (taken == 0) {
          chunks.push_back(chunk);
          chunk = {shard, chunk.chunk + 1, false, row, 0, RecycledVector<std::int32_t>(experts, 0)};
          continue;
        }
        chunk.counts[static_cast<std::size_t>(e - range.begin)] += static_cast<std::int32_t>(taken);
        chunk.rows += taken;
        row += taken;
        left -= taken;
      }
    }
    chunk.last = true;
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

}  // namespace troupe
