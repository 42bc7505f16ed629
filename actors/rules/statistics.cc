#include "actors/rules/statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr std::size_t kTrendPointsMax = 500;
constexpr double kSumSlack = 1e-9;  // of sums of differences that are equal but for rounding

double mean_of(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Estimate with_interval(double value, std::vector<double>& resampled) {
  std::sort(resampled.begin(), resampled.end());
  const double tail = (1 - kConfidence) / 2;
  return {value, quantile_of_sorted(resampled, tail), quantile_of_sorted(resampled, 1 - tail)};
}

// Reorders them.
double median_of(std::vector<double>& slopes) {
  if (slopes.empty()) return 0;
  const auto middle = slopes.begin() + static_cast<std::ptrdiff_t>(slopes.size() / 2);
  std::nth_element(slopes.begin(), middle, slopes.end());
  if (slopes.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(slopes.begin(), middle)) / 2;
}

double slope_of(const std::vector<Point>& points, std::vector<double>& slopes) {
  slopes.clear();
  for (std::size_t i = 0; i < points.size(); ++i)
    for (std::size_t j = i + 1; j < points.size(); ++j)
      if (points[i].first != points[j].first)
        slopes.push_back((points[j].second - points[i].second) / (points[j].first - points[i].first));
  return median_of(slopes);
}

std::vector<Point> thinned(const std::vector<Point>& points, std::size_t most) {
  if (points.size() <= most) return points;
  std::vector<Point> some;
  for (std::size_t i = 0; i < most; ++i) some.push_back(points[i * points.size() / most]);
  return some;
}

}  // namespace

double pass_at_k(int n, int c, int k) {
  double missed = 1;
  for (int i = n - c + 1; i <= n; ++i) missed *= 1 - static_cast<double>(k) / i;
  return n - c < k ? 1 : 1 - missed;
}

bool majority_is_right(const std::vector<Ballot>& ballots, int k) {
  struct Votes {
    int count = 0;
    std::size_t first = 0;
  };
  std::map<std::string, Votes> all;
  const std::size_t end = std::min(ballots.size(), static_cast<std::size_t>(std::max(k, 0)));
  for (std::size_t i = 0; i < end; ++i)
    if (!ballots[i].says.empty()) ++all.try_emplace(ballots[i].says, Votes{0, i}).first->second.count;
  const Votes* best = nullptr;
  for (const auto& [says, votes] : all)
    if (best == nullptr || votes.count > best->count || (votes.count == best->count && votes.first < best->first))
      best = &votes;
  return best != nullptr && ballots[best->first].correct;
}

double quantile_of_sorted(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(at), sorted.size() - 1);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

std::vector<Estimate> bootstrap_means(const std::vector<std::vector<double>>& figures, std::uint64_t seed,
                                      int resamples) {
  std::vector<Estimate> estimates(figures.size());
  if (figures.empty() || figures[0].empty()) return estimates;
  const std::size_t problems = figures[0].size(), count = figures.size();
  std::vector<double> rows(problems * count);  // (problems, figures): a draw reads one row
  for (std::size_t f = 0; f < count; ++f) {
    CHECK(figures[f].size() == problems, "figure {} is of {} problems, the first of {}", f, figures[f].size(),
          problems);
    for (std::size_t p = 0; p < problems; ++p) rows[p * count + f] = figures[f][p];
  }
  const std::uint64_t key = random_key(seed, "bootstrap");
  std::vector<std::vector<double>> means(count, std::vector<double>(static_cast<std::size_t>(resamples)));
  std::vector<double> sums(count);
  for (int r = 0; r < resamples; ++r) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::size_t i = 0; i < problems; ++i) {
      const std::size_t p = random_below(problems, key, static_cast<std::uint64_t>(r), i);
      for (std::size_t f = 0; f < count; ++f) sums[f] += rows[p * count + f];
    }
    for (std::size_t f = 0; f < count; ++f)
      means[f][static_cast<std::size_t>(r)] = sums[f] / static_cast<double>(problems);
  }
  for (std::size_t f = 0; f < count; ++f) estimates[f] = with_interval(mean_of(figures[f]), means[f]);
  return estimates;
}

double sign_flip_p_value(const std::vector<double>& differences, std::uint64_t seed, int flips) {
  std::vector<double> some;
  for (const double d : differences)
    if (d != 0) some.push_back(d);
  const double sum = std::accumulate(some.begin(), some.end(), 0.0);
  double size = 0;
  for (const double d : some) size += std::abs(d);
  const double limit = std::abs(sum) - kSumSlack * size;
  const std::size_t n = some.size();
  const bool all = n < 31 && (std::int64_t{1} << n) <= flips;
  const std::int64_t patterns = all ? std::int64_t{1} << n : flips;
  const std::uint64_t key = random_key(seed, "sign flips");
  std::int64_t hits = 0;
  for (std::int64_t pattern = 0; pattern < patterns; ++pattern) {
    double flipped = 0;
    std::uint64_t word = static_cast<std::uint64_t>(pattern);
    for (std::size_t i = 0; i < n; ++i) {
      if (!all && i % 64 == 0) word = random_word(key, static_cast<std::uint64_t>(pattern), i / 64);
      flipped += (word >> (i % 64) & 1) != 0 ? -some[i] : some[i];
    }
    if (std::abs(flipped) >= limit) ++hits;
  }
  if (all) return static_cast<double>(hits) / static_cast<double>(patterns);
  return static_cast<double>(hits + 1) / static_cast<double>(patterns + 1);
}

double theil_sen_slope(const std::vector<Point>& points) {
  std::vector<double> slopes;
  return slope_of(thinned(points, kTrendPointsMax), slopes);
}

double rise_p_value(const std::vector<Point>& points) {
  std::vector<Point> some = thinned(points, kTrendPointsMax);
  std::sort(some.begin(), some.end());
  const auto n = static_cast<double>(some.size());
  if (some.size() < 3) return 1;
  std::int64_t rising = 0;
  std::map<double, double> ties;  // by y
  for (std::size_t i = 0; i < some.size(); ++i) {
    ++ties[some[i].second];
    for (std::size_t j = i + 1; j < some.size(); ++j)
      rising += (some[j].second > some[i].second ? 1 : 0) - (some[j].second < some[i].second ? 1 : 0);
  }
  double variance = n * (n - 1) * (2 * n + 5);
  for (const auto& [y, t] : ties) variance -= t * (t - 1) * (2 * t + 5);
  if (variance <= 0) return 1;  // all alike
  const double step = rising > 0 ? 1 : rising < 0 ? -1 : 0;
  const double z = (static_cast<double>(rising) - step) / std::sqrt(variance / 18);
  return std::erfc(z / std::sqrt(2.0)) / 2;
}

Estimate theil_sen(const std::vector<Point>& points, std::uint64_t seed, int resamples) {
  const double value = theil_sen_slope(points);
  // A draw of n points costs n^2 slopes; a hundred are enough for an interval.
  const std::vector<Point> some = thinned(points, 100);
  if (some.empty()) return {};
  const std::uint64_t key = random_key(seed, "trend");
  std::vector<double> slopes, all;
  std::vector<Point> drawn(some.size());
  for (int r = 0; r < resamples; ++r) {
    for (std::size_t i = 0; i < some.size(); ++i)
      drawn[i] = some[random_below(some.size(), key, static_cast<std::uint64_t>(r), i)];
    const double slope = slope_of(drawn, slopes);
    if (!slopes.empty()) all.push_back(slope);  // none: all drawn points have one x
  }
  return with_interval(value, all);
}

}  // namespace troupe
