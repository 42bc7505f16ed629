// How many rows go to each expert, where nobody computes a routing: a distribution, measured or made up, and the luck of
// a microbatch. The law: counts are a pure function of shares, layer and key, and sum to rows x slots.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/op.h"

namespace troupe {

struct ExpertLoad {
  std::vector<double> shares;  // of the experts of a layer, any sum; empty: all alike
  bool luck = true;            // a microbatch's counts scatter as those of independent tokens; false: the mean, rounded
  // Which expert is hot differs between layers; false: expert e has shares[e] in all.
  bool shuffled = true;
};

// Only op.counts is written.
void make_up_counts(const Router& op, const ExpertLoad& load, int layer, std::uint64_t key);

}  // namespace troupe
