// The rules of group-relative policy optimization that need nothing but numbers: advantages, what each token weighs in
// the loss, which rollout a step learns from and which weights sampled it. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/config.h"

namespace troupe {

// A = (reward - mean) / (std + epsilon) within each group of `group_size` consecutive rewards; std with the divisor
// group_size - ddof; without scaling just reward - mean. A group of one has A = 0.
std::vector<double> advantages(const std::vector<double>& rewards, int group_size, const GrpoConfig& config);

// Whether the group teaches anything: its rewards differ.
bool is_useful(const double* rewards, int group_size);

// What each token of a sample weighs in the loss: `lengths` are the trained tokens of all samples of the step.
//   sequence_mean: 1 / (samples x own length);  token_mean: 1 / all tokens;  constant: 1 / (samples x length_max)
std::vector<double> token_weights(const std::vector<std::int64_t>& lengths, const std::string& reduction,
                                  std::int64_t length_max);

// The penalty of an answer's length, 0..-1: nothing up to length_max - range, then linear (DAPO's soft punishment).
double overlong_penalty(std::int64_t length, std::int64_t length_max, std::int64_t range);

// Rollouts are numbered: rollout k feeds steps k U .. k U + U - 1, U = grpo.updates_per_rollout, and is sampled by
// version max(0, k U - grpo.rollout_lag). Exact: no other version may have sampled it.
std::int64_t rollout_of_step(const GrpoConfig& config, std::int64_t step);
std::int64_t version_of_rollout(const GrpoConfig& config, std::int64_t rollout);
// The rollouts that must be there before a step can follow version `version`: those that it samples itself, and those
// that steps from it on still learn from. Of a run of `steps` steps.
std::vector<std::int64_t> rollouts_needed(const GrpoConfig& config, std::int64_t version, std::int64_t steps);

// Samples 0..count-1 in the order in which the rollout's updates take them: update u gets the u-th of `updates` equal
// parts. A permutation drawn by seed and rollout; with one update the order as it is.
std::vector<std::int64_t> order_of_updates(std::int64_t count, int updates, std::uint64_t seed, std::int64_t rollout);

}  // namespace troupe
