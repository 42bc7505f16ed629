#include "launcher/pairs/rounds.h"

#include <algorithm>

namespace troupe {

// Together: the last host stays, the others go round it, one place a round; an odd number gets a host that isn't there.
std::vector<std::vector<HostPair>> rounds_of(std::size_t hosts, bool together) {
  std::vector<std::vector<HostPair>> rounds;
  if (!together)
    for (std::size_t a = 0; a < hosts; ++a)
      for (std::size_t b = a + 1; b < hosts; ++b) rounds.push_back({{a, b}});
  if (!together || hosts < 2) return rounds;
  const std::size_t even = hosts + hosts % 2, ring = even - 1;
  for (std::size_t round = 0; round < ring; ++round) {
    auto& pairs = rounds.emplace_back();
    for (std::size_t i = 0; i < even / 2; ++i) {
      const std::size_t one = (round + i) % ring, other = i == 0 ? ring : (round + ring - i) % ring;
      if (one < hosts && other < hosts) pairs.push_back({std::min(one, other), std::max(one, other)});
    }
  }
  return rounds;
}

}  // namespace troupe
