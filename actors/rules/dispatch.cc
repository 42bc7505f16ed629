#include "actors/rules/dispatch.h"

#include <algorithm>

#include "actors/rules/placement.h"

namespace troupe {

RecycledVector<DispatchChunk> plan_dispatch(const Config& config, const std::int32_t* counts) {
  RecycledVector<DispatchChunk> chunks;
  const std::int64_t room = config.layout.chunk_rows_max;
  std::int64_t row = 0;
  for (int shard = 0; shard < config.layout.expert_shards; ++shard) {
    const ExpertRange range = experts_of(config, shard);
    const auto experts = static_cast<std::size_t>(range.end - range.begin);
    DispatchChunk chunk{shard, 0, false, row, 0, RecycledVector<std::int32_t>(experts, 0)};
    for (int e = range.begin; e < range.end; ++e) {
      std::int64_t left = counts[e];
      while (left > 0) {
        if (chunk.rows == room) {
          chunks.push_back(chunk);
          chunk = {shard, chunk.chunk + 1, false, row, 0, RecycledVector<std::int32_t>(experts, 0)};
        }
        const std::int64_t taken = std::min(left, room - chunk.rows);
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
