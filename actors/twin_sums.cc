#include "actors/twin_sums.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace troupe {

namespace {

void check_fits(const std::vector<SumRange>& ranges, std::int64_t begin, const Payload& sums) {
  const bool fits = std::any_of(ranges.begin(), ranges.end(), [&](const SumRange& range) {
    return range.begin == begin && sums.size == static_cast<std::size_t>(range.count) * sizeof(float);
  });
  CHECK(fits, "{} bytes of sums from element {} on, where no such part is", sums.size, begin);
}

}  // namespace

TwinSums::TwinSums(const Config& config, int replica, std::int64_t elements) : replica_(replica) {
  const int replicas = config.layout.replicas;
  for (int r = 0; r < replicas; ++r)
    ranges_.push_back(cut_sums(part_of_sums(elements, replicas, r), config.layout.sums_elements_max));
}

std::vector<int> TwinSums::twins() const {
  const int replicas = static_cast<int>(ranges_.size());
  std::vector<int> all;
  for (int i = 1; i < replicas; ++i) all.push_back(replica_ ^ i);
  return all;
}

void TwinSums::take(const PartialSums& sums, std::int64_t step) {
  check_fits(ranges(replica_), sums.begin, sums.sums);
  partial_[{step, sums.begin, sums.replica}] = sums.sums;
}

void TwinSums::take(const ReducedSums& sums) {
  const auto adder = std::find_if(ranges_.begin(), ranges_.end(), [&](const std::vector<SumRange>& part) {
    return !part.empty() && sums.begin < part.back().begin + part.back().count;
  });
  CHECK(adder != ranges_.end() && adder != ranges_.begin() + replica_, "element {} is added here, or nowhere",
        sums.begin);
  check_fits(*adder, sums.begin, sums.sums);
  reduced_[sums.begin] = sums.sums;
}

bool TwinSums::has_partial(std::int64_t step, int twin) const {
  return std::all_of(ranges(replica_).begin(), ranges(replica_).end(), [&](const SumRange& range) {
    return partial_.contains({step, range.begin, twin});
  });
}

bool TwinSums::has_reduced(int adder) const {
  return std::all_of(ranges(adder).begin(), ranges(adder).end(),
                     [&](const SumRange& range) { return reduced_.contains(range.begin); });
}

std::vector<const float*> TwinSums::partial(std::int64_t step, const SumRange& range) const {
  std::vector<const float*> terms;
  for (int r = 0; r < static_cast<int>(ranges_.size()); ++r)
    terms.push_back(r == replica_ ? nullptr : partial_.at({step, range.begin, r}).as<float>());
  return terms;
}

void TwinSums::forget_partial(std::int64_t step) {
  std::erase_if(partial_, [&](const auto& entry) { return std::get<0>(entry.first) <= step; });
}

void TwinSums::clear() {
  partial_.clear();
  reduced_.clear();
}

}  // namespace troupe
