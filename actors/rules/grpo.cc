#include "actors/rules/grpo.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace troupe {

std::vector<double> advantages(const std::vector<double>& rewards, int group_size, const GrpoConfig& config) {
  const auto size = static_cast<std::size_t>(group_size);
  CHECK(group_size > 0 && rewards.size() % size == 0, "{} rewards in groups of {}", rewards.size(), group_size);
  std::vector<double> all(rewards.size(), 0.0);
  for (std::size_t begin = 0; begin < rewards.size(); begin += size) {
    if (size == 1) continue;
    double mean = 0, square = 0;
    for (std::size_t i = begin; i < begin + size; ++i) mean += rewards[i] / static_cast<double>(size);
    for (std::size_t i = begin; i < begin + size; ++i) square += (rewards[i] - mean) * (rewards[i] - mean);
    const double std = std::sqrt(square / static_cast<double>(group_size - config.std_ddof));
    for (std::size_t i = begin; i < begin + size; ++i)
      all[i] = config.scale_by_std ? (rewards[i] - mean) / (std + config.advantage_epsilon) : rewards[i] - mean;
  }
  return all;
}

bool is_useful(const double* rewards, int group_size) {
  return std::any_of(rewards, rewards + group_size, [&](double reward) { return reward != rewards[0]; });
}

std::vector<double> token_weights(const std::vector<std::int64_t>& lengths, const std::string& reduction,
                                  std::int64_t length_max) {
  const auto samples = static_cast<double>(lengths.size());
  const auto tokens = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}));
  std::vector<double> weights;
  for (const std::int64_t length : lengths) {
    const double divisor = reduction == "token_mean" ? tokens
                           : reduction == "constant" ? samples * static_cast<double>(length_max)
                                                     : samples * static_cast<double>(length);
    weights.push_back(length > 0 ? 1 / divisor : 0);
  }
  return weights;
}

double overlong_penalty(std::int64_t length, std::int64_t length_max, std::int64_t range) {
  if (range <= 0 || length <= length_max - range) return 0;
  return std::max(-1.0, static_cast<double>(length_max - range - length) / static_cast<double>(range));
}

std::int64_t rollout_of_step(const GrpoConfig& config, std::int64_t step) { return step / config.updates_per_rollout; }

std::int64_t version_of_rollout(const GrpoConfig& config, std::int64_t rollout) {
  return std::max<std::int64_t>(0, rollout * config.updates_per_rollout - config.rollout_lag);
}

std::vector<std::int64_t> rollouts_needed(const GrpoConfig& config, std::int64_t version, std::int64_t steps) {
  std::vector<std::int64_t> all;
  for (std::int64_t k = rollout_of_step(config, version);
       k * config.updates_per_rollout < steps && version_of_rollout(config, k) <= version; ++k)
    all.push_back(k);
  return all;
}

std::vector<std::int64_t> order_of_updates(std::int64_t count, int updates, std::uint64_t seed, std::int64_t rollout) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  if (updates == 1) return order;
  const std::uint64_t key = random_word(random_key(seed, "grpo/updates"), static_cast<std::uint64_t>(rollout));
  for (auto& place : order)
    place = static_cast<std::int64_t>(
        random_permute(static_cast<std::uint64_t>(place), static_cast<std::uint64_t>(count), key));
  return order;
}

}  // namespace troupe
