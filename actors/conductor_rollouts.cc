// What the conductor leads where there are rollouts. The law: a version samples exactly the rollouts that are its own,
// and is followed by the next when these are on disk; nobody samples before all owners have read back what they hold.
#include <nlohmann/json.hpp>

#include "actors/conductor.h"
#include "actors/rules/grpo.h"
#include "actors/rules/placement.h"

namespace troupe {

namespace {
constexpr Address kLoader{Role::loader, 0}, kBuffer{Role::rollout_buffer, 0};
}

void Conductor::forget_rollouts() {
  rollouts_asked_.clear();
  rollouts_durable_.clear();
  rollouts_ready_.clear();
  digests_.clear();
  step_started_ = answering_ = false;
}

// A step is decided: another version is next, and what no step to come learns from can go.
void Conductor::forget_learned() {
  const std::int64_t first = rollout_of_step(config_.grpo, state_.version);
  rollouts_asked_.erase(rollouts_asked_.begin(), rollouts_asked_.lower_bound(first));
  rollouts_durable_.erase(rollouts_durable_.begin(), rollouts_durable_.lower_bound(first));
  rollouts_ready_.erase(rollouts_ready_.begin(), rollouts_ready_.lower_bound(first));
  digests_.clear();
  step_started_ = false;
}

// Twins hold the same; their digests are sums over the same tensors.
std::string Conductor::compare_twins() const {
  for (int s = 0; s < config_.layout.stages; ++s)
    for (int r = 1; r < config_.layout.replicas; ++r) {
      const Address first = stage_address(config_, 0, s), twin = stage_address(config_, r, s);
      if (digests_.at(first) != digests_.at(twin))
        return fmt::format(
            "the weights of version {} differ between {} and {}: silent data corruption on one of their "
            "nodes; nothing was learned from them; resume from the last checkpoint on other hardware",
            state_.version, to_string(first), to_string(twin));
    }
  return "";
}

void Conductor::on(const WeightsDigest& digest, const Address& from) {
  if (digest.attempt != attempt_ || digest.version != state_.version) return;
  if (!digest.problem.empty()) return problem(digest.problem);
  digests_[from] = digest.digest;
  if (digests_.size() < owners_.size()) return;
  if (const std::string wrong = compare_twins(); !wrong.empty()) return problem(wrong);
  std::uint64_t sum = 0;
  for (const Address& owner : snapshot_owners(config_)) sum += digests_.at(owner);
  std::uint64_t& known = state_.digests.emplace(state_.version, sum).first->second;
  if (known != sum)
    return problem(
        fmt::format("the weights of version {} have the digest {:016x}, and had {:016x} when they were made; "
                    "nothing was learned from them; resume from the last checkpoint",
                    state_.version, sum, known));
  lead_rollouts();
  try_decide();
}

void Conductor::lead_rollouts() {
  const bool begun = restored_.size() == holders_.size() && !evaluating_ && !answering_ && !last_decided_;
  if (!begun || mode_ != RunMode::train || digests_.size() < owners_.size()) return;
  for (const std::int64_t rollout : rollouts_needed(config_.grpo, state_.version, config_.train.steps)) {
    if (!rollouts_asked_.insert(rollout).second) continue;
    const std::int64_t version = version_of_rollout(config_.grpo, rollout);
    const auto digest = state_.digests.find(version);
    if (digest == state_.digests.end())
      return problem(
          fmt::format("rollout {} was sampled by version {}, of which this run knows nothing; resume from a "
                      "checkpoint of the run itself",
                      rollout, version));
    context_.post(kBuffer, StartRollout{WorkKind::train, rollout, attempt_, version, digest->second});
  }
  start_sampled_step();
}

void Conductor::start_sampled_step() {
  if (step_started_ || evaluating_ || answering_ || last_decided_ || digests_.size() < owners_.size()) return;
  if (!rollouts_ready_.contains(rollout_of_step(config_.grpo, state_.version))) return;
  step_started_ = true;
  context_.post(kLoader, StartStep{state_.version, attempt_});
}

bool Conductor::rollouts_durable() const {
  if (digests_.size() < owners_.size()) return false;
  for (const std::int64_t rollout : rollouts_needed(config_.grpo, state_.version, config_.train.steps))
    if (!rollouts_durable_.contains(rollout)) return false;
  return true;
}

void Conductor::on(const RolloutDone& done, const Address&) {
  if (done.of.attempt != attempt_) return;
  if (done.of.kind == WorkKind::evaluate) {
    answering_ = false;
    report("answers", done.metrics);
    if (mode_ != RunMode::train) {
      last_decided_ = answered_ = true;
      return finish_if_done();
    }
    // Enough ends the run after one more step, which is saved; an evaluation at the end doesn't take that back.
    if (!last_decided_) state_.accuracy = nlohmann::json::parse(done.metrics).at("accuracy");
    return next();
  }
  rollouts_ready_[done.of.rollout] = done.metrics;
  if (!done.durable) return start_sampled_step();
  if (!rollouts_durable_.insert(done.of.rollout).second) return;
  report("rollout", done.metrics);
  start_sampled_step();
  try_decide();
}

// By the same weights a token has one log-probability, to the bit.
std::string Conductor::gap_problem(const StepPlan& plan, const StepLosses& losses) const {
  if (!config_.has_rollouts() || losses.gaps == 0) return "";
  if (version_of_rollout(config_.grpo, rollout_of_step(config_.grpo, plan.step)) != plan.step) return "";
  return fmt::format(
      "step {}: of {} log-probabilities {} were recomputed with other bits than recorded at sampling by "
      "the same weights, the farthest off by {}; nothing was learned from them; this is an error in the "
      "program or in memory: resume from the last checkpoint, on other hardware if it happens again",
      plan.step, losses.targets, losses.gaps, losses.gap_max);
}

// ---- Held-out problems ----------------------------------------------------------------------------------------------

bool Conductor::answers_due() const {
  if (!config_.has_answers() || mode_ != RunMode::train || answered_version_ == state_.version) return false;
  const int every = config_.evaluate.every_steps;
  return last_decided_ || state_.version == 0 || (every > 0 && state_.version % every == 0);
}

void Conductor::start_answers() {
  answering_ = true;
  answered_version_ = state_.version;
  context_.post(kBuffer, StartRollout{WorkKind::evaluate, state_.version, attempt_, state_.version, 0});
}

}  // namespace troupe
