// Tolerances, each with where it comes from. eps = 2^-24 is half a unit in the last place of a float32 near 1.
#pragma once

#include <algorithm>
#include <cmath>

namespace troupe::test {

constexpr double kFloatEps = 0x1.0p-24;
constexpr double kHalfEps = 0x1.0p-8;  // bfloat16: 8 bits of significand, rounded to nearest

// A sum of n float32 terms is off by at most about n eps * sum |terms|; with random signs by sqrt(n) of them. We allow
// n eps times the size of the terms, and 8 roundings more for the elementwise arithmetic around the sum.
inline double sum_tolerance(double terms, double size) { return (terms + 8) * kFloatEps * size; }

// The same, and one rounding to bfloat16 of the result.
inline double half_tolerance(double terms, double size, double value) {
  return sum_tolerance(terms, size) + kHalfEps * std::abs(value);
}

// A central difference with step h in double: truncation h^2 / 6 f''' plus rounding 2^-53 f / h. At h = 1e-5 and f,
// f''' of size 10 both stay below 1e-9: far under the float32 gradient it judges.
constexpr double kDifferenceStep = 1e-5;

inline bool close(double actual, double expected, double tolerance) {
  return std::abs(actual - expected) <= tolerance;  // false for NaN
}

}  // namespace troupe::test
