#include "kernels/sim/expert_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr std::uint64_t kShuffle = 0x73687566;

// The share of expert e in this layer.
double share_of(const ExpertLoad& load, std::uint64_t experts, std::uint64_t expert, int layer) {
  if (load.shares.empty()) return 1;
  const std::uint64_t place =
      load.shuffled ? random_permute(expert, experts, random_word(kShuffle, static_cast<std::uint64_t>(layer)))
                    : expert;
  return load.shares[place];
}

}  // namespace

// Counts are rounded where their running sum is, so that none is lost; an expert sees a token at most once.
void make_up_counts(const Router& op, const ExpertLoad& load, int layer, std::uint64_t key) {
  if (op.reuse_indices) return;
  const auto experts = static_cast<std::uint64_t>(op.counts.cols);
  const double rows = static_cast<double>(op.x.rows), all = rows * static_cast<double>(op.indices.cols);
  CHECK(load.shares.empty() || load.shares.size() == experts, "{} shares for {} experts", load.shares.size(), experts);
  thread_local std::vector<double> wanted;
  wanted.resize(experts);
  double sum = 0;
  for (std::uint64_t e = 0; e < experts; ++e) sum += wanted[e] = share_of(load, experts, e, layer);
  for (std::uint64_t e = 0; e < experts; ++e) {
    const double share = wanted[e] / sum, mean = all * share;
    const double scatter = load.luck ? std::sqrt(mean * (1 - share)) * static_cast<double>(random_normal(key, e)) : 0;
    wanted[e] = std::clamp(mean + scatter, 0.0, rows);
  }
  const double scale = all / std::accumulate(wanted.begin(), wanted.end(), 0.0);
  auto* const counts = op.counts.row<std::int32_t>(0);
  double until = 0;
  std::int64_t given = 0;
  for (std::uint64_t e = 0; e < experts; ++e) {
    until += std::min(rows, wanted[e] * scale);
    const auto count = std::min<std::int64_t>(std::llround(until) - given, op.x.rows);
    counts[e] = static_cast<std::int32_t>(count);
    given += count;
  }
  for (std::uint64_t e = 0; given < std::llround(all); e = (e + 1) % experts) {
    const auto more = std::min<std::int64_t>(std::llround(all) - given, op.x.rows - counts[e]);
    counts[e] += static_cast<std::int32_t>(more);
    given += more;
  }
}

}  // namespace troupe
