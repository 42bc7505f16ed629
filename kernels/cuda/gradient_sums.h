// Which weight gradients that follow each other go in one launch, c += A^T B each: those of a sum, one after another, are
// its runs. Sums are independent of each other.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/op.h"

namespace troupe::cuda {

struct GradientSum {
  Tensor c;
  std::vector<const Product*> runs;
  std::int64_t depth = 0;  // of all runs
};

// The sums of the first of `products`, at most `most` of them and as long as they fit, longest first: blocks that take
// their tiles in turns end together. `taken`: how many products they are. An earlier sum that isn't the last would be
// added to out of turn: it waits for another launch.
template <typename Fits>
std::vector<GradientSum> first_sums(const std::vector<const Product*>& products, std::size_t most, std::size_t& taken,
                                    Fits fits) {
  std::vector<GradientSum> sums;
  for (taken = 0; taken < std::min(products.size(), most); ++taken) {
    const Product& op = *products[taken];
    if (taken > 0 && !fits(op)) break;
    if (sums.empty() || sums.back().c != op.c) {
      const auto same = [&](const GradientSum& sum) { return sum.c.data == op.c.data; };
      if (std::any_of(sums.begin(), sums.end(), same)) break;
      sums.push_back({op.c, {}});
    }
    sums.back().runs.push_back(&op);
    sums.back().depth += op.a.rows;
  }
  std::stable_sort(sums.begin(), sums.end(),
                   [](const GradientSum& one, const GradientSum& other) { return one.depth > other.depth; });
  return sums;
}

}  // namespace troupe::cuda
