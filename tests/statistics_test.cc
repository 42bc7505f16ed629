// What is told of answers: pass@k, votes, intervals, paired tests and trends, against values worked out by hand.
#include <cmath>

#include "actors/rules/statistics.h"
#include "kernels/base/random.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

std::vector<double> coins(std::size_t count, double share, std::uint64_t key) {
  std::vector<double> values;
  for (std::size_t i = 0; i < count; ++i) values.push_back(random_uniform(key, i) < share ? 1 : 0);
  return values;
}

}  // namespace

TEST_CASE("pass@k is the share of k-subsets with a right answer", "[statistics]") {
  CHECK(pass_at_k(4, 0, 1) == 0);
  CHECK(pass_at_k(4, 1, 1) == Approx(0.25));
  CHECK(pass_at_k(4, 1, 2) == Approx(0.5));       // 3 of 6 pairs
  CHECK(pass_at_k(5, 2, 2) == Approx(0.7));       // 1 - C(3,2)/C(5,2) = 1 - 3/10
  CHECK(pass_at_k(10, 3, 4) == Approx(5.0 / 6));  // 1 - C(7,4)/C(10,4) = 1 - 35/210
  CHECK(pass_at_k(4, 3, 2) == 1);                 // no pair without one
  CHECK(pass_at_k(16, 16, 16) == 1);
}

TEST_CASE("the majority of the first k answers is what counts, ties go to the first seen", "[statistics]") {
  const std::vector<Ballot> votes{{"7", false}, {"8", true}, {"8", true}, {"7", false}, {"8", true}};
  CHECK(!majority_is_right(votes, 1));
  CHECK(!majority_is_right(votes, 2));  // one each: 7 came first
  CHECK(majority_is_right(votes, 3));
  CHECK(!majority_is_right(votes, 4));  // two each
  CHECK(majority_is_right(votes, 5));
  CHECK(majority_is_right({{"", false}, {"", false}, {"3", true}}, 3));  // who says nothing has no vote
  CHECK(!majority_is_right({{"", false}}, 1));
  CHECK(!majority_is_right({}, 4));
}

TEST_CASE("a quantile lies between the two nearest values", "[statistics]") {
  CHECK(quantile_of_sorted({}, 0.5) == 0);
  CHECK(quantile_of_sorted({3}, 0.9) == 3);
  CHECK(quantile_of_sorted({1, 2, 4}, 0.5) == 2);
  CHECK(quantile_of_sorted({1, 2, 4}, 0.75) == 3);
  CHECK(quantile_of_sorted({0, 10}, 0.9) == Approx(9));
  CHECK(quantile_of_sorted({0, 10}, 1) == 10);
}

TEST_CASE("an interval is about as wide as theory says, and the same every time", "[statistics]") {
  const std::vector<double> values = coins(400, 0.3, 7);
  const std::vector<Estimate> e = bootstrap_means({values, std::vector<double>(400, 2.5)}, 1);
  double share = 0;
  for (const double v : values) share += v / 400;
  const double sigma = std::sqrt(share * (1 - share) / 400);
  CHECK(e[0].value == Approx(share));
  // 10,000 resamples know the 2.5 % quantile to about 0.03 sigma; the mean's grid of 1/400 adds 0.11 sigma.
  CHECK(e[0].low == Approx(share - 1.96 * sigma).margin(0.15 * sigma));
  CHECK(e[0].high == Approx(share + 1.96 * sigma).margin(0.15 * sigma));
  CHECK(e[1] == Estimate{2.5, 2.5, 2.5});
  CHECK(bootstrap_means({values}, 1)[0] == e[0]);  // whatever is drawn beside it
  CHECK(bootstrap_means({values}, 2)[0] != e[0]);
  CHECK(bootstrap_means({{}}, 1)[0] == Estimate{});
  CHECK(bootstrap_means({{0.25}}, 1)[0] == Estimate{0.25, 0.25, 0.25});
}

TEST_CASE("a 95 % interval holds the true share in about 95 of 100 evaluations", "[statistics]") {
  int held = 0;
  for (std::uint64_t trial = 0; trial < 400; ++trial) {
    const Estimate e = bootstrap_means({coins(120, 0.6, random_key(trial, "trial"))}, trial, 500)[0];
    held += e.low <= 0.6 && 0.6 <= e.high ? 1 : 0;
  }
  CHECK(held >= 365);  // 380 expected, sigma 4.4; the percentile interval of 120 coins covers about 94 %
  CHECK(held <= 394);
}

TEST_CASE("few differences are tested by every pattern of signs", "[statistics]") {
  CHECK(sign_flip_p_value({}, 1) == 1);
  CHECK(sign_flip_p_value({0, 0, 0}, 1) == 1);
  CHECK(sign_flip_p_value({1}, 1) == 1);                 // both patterns are as far off
  CHECK(sign_flip_p_value({1, 1, 1}, 1) == 0.25);        // +++ and --- of 8
  CHECK(sign_flip_p_value({1, 1, 1, -1}, 1) == 0.625);   // |sum| >= 2 in 10 of 16
  CHECK(sign_flip_p_value({3, -1, 0, 1}, 1) == 0.75);    // |sum| >= 3 in 6 of 8
  CHECK(sign_flip_p_value({0.1, 0.2, 0.3}, 1) == 0.25);  // rounding makes no pattern miss itself
}

TEST_CASE("many differences are tested by drawn signs", "[statistics]") {
  std::vector<double> even, one_sided(100, 0.1);
  for (int i = 0; i < 100; ++i) even.push_back(i % 2 == 0 ? 1 : -1);
  CHECK(sign_flip_p_value(even, 1) == 1);
  CHECK(sign_flip_p_value(one_sided, 1) == Approx(1 / 10'001.0));
  std::vector<double> some = even;  // 60 of 100: two-sided binomial p = 0.0569
  for (int i = 1; i < 20; i += 2) some[static_cast<std::size_t>(i)] = 1;
  CHECK(sign_flip_p_value(some, 1) == Approx(0.0569).margin(4 * std::sqrt(0.0569 * 0.9431 / 10'000)));
}

TEST_CASE("a slope is the median of all pairs' slopes, whatever one point does", "[statistics]") {
  CHECK(theil_sen_slope({}) == 0);
  CHECK(theil_sen_slope({{1, 5}}) == 0);
  CHECK(theil_sen_slope({{0, 0}, {1, 2}, {2, 4}}) == 2);
  CHECK(theil_sen_slope({{0, 0}, {1, 2}, {2, 4}, {3, 100}}) == Approx(53.0 / 3));  // 2 2 2 100/3 49 96: (2 + 100/3) / 2
  CHECK(theil_sen_slope({{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 400}, {5, 5}}) == 1);
  CHECK(theil_sen_slope({{1, 0}, {1, 9}}) == 0);
}

TEST_CASE("a trend's p-value is Mann and Kendall's", "[statistics]") {
  // n = 5, S = 10: z = 9 / sqrt(50 / 3) = 2.2045.
  CHECK(rise_p_value({{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}}) == Approx(0.01374).margin(1e-4));
  CHECK(rise_p_value({{1, 5}, {2, 4}, {3, 3}, {4, 2}, {5, 1}}) == Approx(0.98626).margin(1e-4));
  // n = 4 with a tie: S = 5, variance (4 * 3 * 13 - 2 * 1 * 9) / 18 = 23 / 3, z = 4 / 2.7689 = 1.4446.
  CHECK(rise_p_value({{1, 1}, {2, 2}, {3, 2}, {4, 3}}) == Approx(0.0743).margin(1e-4));
  CHECK(rise_p_value({{1, 2}, {2, 2}, {3, 2}}) == 1);
  CHECK(rise_p_value({{1, 1}, {2, 2}}) == 1);
}
