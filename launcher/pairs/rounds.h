// Which pairs of hosts are measured when. Pure.
#pragma once

#include <cstddef>
#include <vector>

namespace troupe {

struct HostPair {
  std::size_t a = 0, b = 0;  // a < b
  friend bool operator==(const HostPair&, const HostPair&) = default;
};

// Each pair of `hosts` once. Apart: a round is one pair. Together: a round is pairs that share no host, as a tournament
// has them: hosts - 1 rounds, or as many as there are hosts where that is odd.
std::vector<std::vector<HostPair>> rounds_of(std::size_t hosts, bool together);

}  // namespace troupe
