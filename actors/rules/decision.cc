#include "actors/rules/decision.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "actors/rules/learning_rate.h"
#include "actors/rules/placement.h"

namespace troupe {

namespace {

// Twins' votes must be equal bit for bit; a difference is silent data corruption, found for free. The sum of squares
// alone would miss a flip in an element too small to count, and a flipped sign.
std::string compare_twins(const Config& config, const Votes& votes) {
  if (config.layout.replicas == 1) return "";
  const auto places = place_owners(config);
  for (int s = 0; s < config.layout.stages; ++s) {
    const Vote& first = votes.at(stage_address(config, 0, s));
    for (int r = 1; r < config.layout.replicas; ++r) {
      const Vote& twin = votes.at(stage_address(config, r, s));
      for (std::size_t i = 0; i < first.squares.size(); ++i) {
        if (first.squares[i].bits != twin.squares[i].bits ||
            std::bit_cast<std::uint64_t>(first.squares[i].sum) != std::bit_cast<std::uint64_t>(twin.squares[i].sum))
          return fmt::format(
              "the gradients of {} differ between {} (node {}) and {} (node {}) in step {}: silent data corruption on "
              "one of these nodes; resume from the last checkpoint on other hardware",
              first.squares[i].name, to_string(stage_address(config, 0, s)), places.at(stage_address(config, 0, s)),
              to_string(stage_address(config, r, s)), places.at(stage_address(config, r, s)), first.step);
      }
    }
  }
  return "";
}

double gradient_norm(const Config& config, const Votes& votes) {
  std::vector<TensorSquares> all;
  for (const Address& owner : snapshot_owners(config)) {
    const auto& squares = votes.at(owner).squares;
    all.insert(all.end(), squares.begin(), squares.end());
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  double sum = 0;
  for (const TensorSquares& t : all) sum += t.sum;
  return std::sqrt(sum);
}

StepLosses losses_of(const Config& config, const StepPlan& plan, const Votes& votes) {
  std::vector<MicrobatchLoss> parts;
  for (const auto& [owner, vote] : votes) parts.insert(parts.end(), vote.losses.begin(), vote.losses.end());
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.microbatch < b.microbatch; });
  double loss = 0, mtp = 0, balance = 0;
  for (const MicrobatchLoss& p : parts) {
    loss += p.loss_sum;
    mtp += p.mtp_loss_sum;
    balance += p.balance_sum;
  }
  StepLosses out;
  const double targets = std::max<double>(1, static_cast<double>(plan.target_tokens));
  for (const MicrobatchLoss& p : parts) {
    out.kl += p.kl_sum / targets;
    out.clipped += p.clipped / targets;
    out.entropy += p.entropy_sum / targets;
    out.gap_max = std::max(out.gap_max, p.gap_max);
    out.gaps += p.gaps;
  }
  out.targets = plan.target_tokens;
  // A sampled token's weight holds its divisor.
  out.loss = config.has_rollouts() ? loss : plan.target_tokens > 0 ? loss / targets : 0;
  out.mtp_loss = plan.mtp_target_tokens > 0 ? mtp / static_cast<double>(plan.mtp_target_tokens) : 0;
  out.balance_loss = balance / config.train.batch_sequences;
  out.total_loss = out.loss + (config.model.has_mtp() ? config.train.mtp_loss_weight * out.mtp_loss : 0) +
                   config.balance_alpha() * out.balance_loss;
  return out;
}

std::vector<ExpertCounts> counts_of(const Votes& votes) {
  std::map<std::int32_t, std::vector<std::int64_t>> sums;
  for (const auto& [owner, vote] : votes) {
    for (const ExpertCounts& c : vote.counts) {
      auto& sum = sums[c.layer];
      sum.resize(std::max(sum.size(), c.counts.size()));
      for (std::size_t e = 0; e < c.counts.size(); ++e) sum[e] += c.counts[e];
    }
  }
  std::vector<ExpertCounts> all;
  for (auto& [layer, counts] : sums) all.push_back({layer, std::move(counts)});
  return all;
}

Verdict verdict_of(const Config& config, const TrainingState& state, const StepLosses& losses, double norm) {
  const TrainConfig& t = config.train;
  std::string policy;
  if (!std::isfinite(norm) || !std::isfinite(losses.total_loss))
    policy = t.non_finite;
  else if (t.spike_factor > 0 && state.loss_mean > 0 && losses.loss > t.spike_factor * state.loss_mean)
    policy = t.spike;
  if (policy.empty()) return Verdict::commit;
  return policy == "stop" || state.skips_in_row + 1 > t.skips_max ? Verdict::stop : Verdict::skip;
}

}  // namespace

std::string budget_reached(const Config& config, const TrainingState& state) {
  const BudgetConfig& budget = config.budget;
  if (state.version >= config.train.steps) return "train.steps";
  if (budget.max_steps > 0 && state.version >= budget.max_steps) return "budget.max_steps";
  if (budget.max_tokens > 0 && state.tokens >= budget.max_tokens) return "budget.max_tokens";
  if (budget.until_accuracy > 0 && state.accuracy >= budget.until_accuracy) return "budget.until_accuracy";
  return "";
}

StepOutcome decide(const Config& config, const TrainingState& state, const StepPlan& plan, const Votes& votes) {
  StepOutcome out;
  out.problem = compare_twins(config, votes);
  out.losses = losses_of(config, plan, votes);
  out.counts = counts_of(votes);
  Decision& d = out.decision;
  d.step = plan.step;
  d.attempt = plan.attempt;
  d.gradient_norm = gradient_norm(config, votes);
  d.verdict = out.problem.empty() ? verdict_of(config, state, out.losses, d.gradient_norm) : Verdict::stop;
  d.updates = state.updates + (d.verdict == Verdict::commit ? 1 : 0);
  d.learning_rate = learning_rate(config.train, plan.step);
  d.clip_scale = config.train.clip_norm > 0 ? std::min(1.0, config.train.clip_norm / (d.gradient_norm + 1e-6)) : 1.0;
  d.counts = out.counts;
  TrainingState next = state;
  next.version = plan.step + 1;
  next.tokens += plan.tokens;
  out.reason = budget_reached(config, next);
  d.last = !out.reason.empty();
  const int every = config.checkpoint.every_steps;
  d.checkpoint = d.last || (every > 0 && (plan.step + 1) % every == 0);
  return out;
}

TrainingState advance(const Config& config, const TrainingState& state, const StepPlan& plan,
                      const StepOutcome& outcome) {
  TrainingState next = state;
  next.version = plan.step + 1;
  next.updates = outcome.decision.updates;
  next.tokens += plan.tokens;
  std::erase_if(next.digests, [&](const auto& known) {
    return known.first + config.grpo.rollout_lag + config.grpo.updates_per_rollout < next.version;
  });
  const bool committed = outcome.decision.verdict == Verdict::commit;
  next.skips_in_row = committed ? 0 : state.skips_in_row + 1;
  if (committed)
    next.loss_mean = state.loss_mean > 0 ? 0.9 * state.loss_mean + 0.1 * outcome.losses.loss : outcome.losses.loss;
  return next;
}

}  // namespace troupe
