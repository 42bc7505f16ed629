// What answers to problems tell, as numbers: pass@k, majority votes, intervals over problems, paired tests, trends. Pure
// functions of values and a seed. The law: what is resampled is the problem, never the single answer, since answers to
// one problem are not independent of one another; and the same seed gives the same interval, to the bit.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace troupe {

constexpr int kResamples = 10'000;
constexpr double kConfidence = 0.95;

// 1 - C(n - c, k) / C(n, k): the chance that k of n answers, c of them right, have a right one among them; unbiased
// (Chen et al. 2021). REQUIRES: 1 <= k <= n.
double pass_at_k(int n, int c, int k);

// A vote: what an answer says. Votes that say nothing don't count.
struct Ballot {
  std::string says;
  bool correct = false;
};
// Whether most of the first k ballots agree on something right; of two with as many votes the one first seen counts.
// False if nobody says anything.
bool majority_is_right(const std::vector<Ballot>& ballots, int k);

// Of sorted values: linear between the two that are nearest (Hyndman and Fan's type 7). 0 of none.
double quantile_of_sorted(const std::vector<double>& sorted, double share);

struct Estimate {
  double value = 0, low = 0, high = 0;
  friend bool operator==(const Estimate&, const Estimate&) = default;
};

// The mean of each figure over problems with its percentile bootstrap interval: problems are drawn with replacement,
// the same draw for every figure. figures[f][p]: figure f of problem p. REQUIRES: every figure has a value for each of
// the problems. Of no problems all is 0; of one problem the interval is its value.
std::vector<Estimate> bootstrap_means(const std::vector<std::vector<double>>& figures, std::uint64_t seed,
                                      int resamples = kResamples);

// Two-sided p-value of "the differences are symmetric about 0", by flipping signs: all 2^n patterns where they are no
// more than `flips`, else so many drawn ones, and then (hits + 1) / (flips + 1). Differences of 0 change nothing.
double sign_flip_p_value(const std::vector<double>& differences, std::uint64_t seed, int flips = kResamples);

// One point of a trend.
using Point = std::pair<double, double>;  // x, y
// Theil-Sen: the median of the slopes of all pairs of points with different x. 0 of fewer than two. At most 500 points,
// evenly chosen, are looked at.
double theil_sen_slope(const std::vector<Point>& points);
// One-sided p-value of "no trend" against "y rises with x" (Mann-Kendall, normal approximation with the ties' correction
// and half a step of continuity). 1 of fewer than three points. Looks at no more points than theil_sen_slope.
double rise_p_value(const std::vector<Point>& points);
// The slope with its percentile bootstrap interval over points.
Estimate theil_sen(const std::vector<Point>& points, std::uint64_t seed, int resamples = 1000);

}  // namespace troupe
