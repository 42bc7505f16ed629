// How twins share the adding of their sums: a stage's elements are cut into a part for each replica, and replica p adds the
// sums of all replicas over part p. Pure functions, alike for all twins. The law: the parts cover every element once, in
// order, and whichever replica adds an element, it adds the same terms in the same order (Owner::add_twins).
#pragma once

#include <cstdint>
#include <vector>

namespace troupe {

// A run of a stage's elements.
struct SumRange {
  std::int64_t begin = 0, count = 0;
  friend bool operator==(const SumRange&, const SumRange&) = default;
};

constexpr std::int64_t kSumBlock = 16;  // elements: parts begin at a multiple, and are equal to within one

// REQUIRES: 0 <= replica < replicas. Some are empty where there are fewer blocks than replicas.
SumRange part_of_sums(std::int64_t elements, int replicas, int replica);
// Of the largest.
std::int64_t part_elements_max(std::int64_t elements, int replicas);
// A part in messages of at most so many elements, as far as whole blocks allow; none of an empty one.
std::vector<SumRange> cut_sums(const SumRange& part, std::int64_t elements_max);

}  // namespace troupe
