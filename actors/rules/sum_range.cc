#include "actors/rules/sum_range.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace troupe {

namespace {
std::int64_t blocks_of(std::int64_t elements) { return (elements + kSumBlock - 1) / kSumBlock; }
}  // namespace

SumRange part_of_sums(std::int64_t elements, int replicas, int replica) {
  CHECK(replica >= 0 && replica < replicas, "part {} of {}", replica, replicas);
  const auto begin_of = [&](int part) { return std::min(elements, blocks_of(elements) * part / replicas * kSumBlock); };
  return {begin_of(replica), begin_of(replica + 1) - begin_of(replica)};
}

std::int64_t part_elements_max(std::int64_t elements, int replicas) {
  return std::min(elements, (blocks_of(elements) + replicas - 1) / replicas * kSumBlock);
}

std::vector<SumRange> cut_sums(const SumRange& part, std::int64_t elements_max) {
  const std::int64_t most = std::max(kSumBlock, elements_max / kSumBlock * kSumBlock);
  std::vector<SumRange> ranges;
  for (std::int64_t done = 0; done < part.count; done += most)
    ranges.push_back({part.begin + done, std::min(most, part.count - done)});
  return ranges;
}

}  // namespace troupe
