// What the conductor waits for, told from the state that it holds.
#include "actors/conductor.h"
#include "actors/rules/placement.h"

namespace troupe {

namespace {

constexpr Address kSupervisor{Role::supervisor, 0};
constexpr Address kLoader{Role::loader, 0};
constexpr Address kCheckpointer{Role::checkpointer, 0};
constexpr Address kRollout{Role::rollout, 0};
constexpr Address kBuffer{Role::rollout_buffer, 0};

}  // namespace

void Conductor::waits(Waits& out) const {
  const WorkKey step = step_key(state_.version, attempt_);
  if (finished_) return;
  if (attempt_ == kNoAttempt) return out.push_back({Awaited::recover, kSupervisor, {}});
  const bool asked = standings_.size() == holders_.size();
  if (!asked || restored_.size() < holders_.size()) {
    for (const Address& holder : holders_)
      if (asked ? !restored_.contains(holder) : !standings_.contains(holder))
        out.push_back({asked ? Awaited::restored : Awaited::standing, holder, step});
    return;
  }
  if (held_) out.push_back({Awaited::leave, kSupervisor, step});
  if (checkpoint_version_ >= 0)
    out.push_back({Awaited::checkpoint, kCheckpointer, step_key(checkpoint_version_, attempt_)});
  if (held_) return;
  if (evaluating_) return evaluation_waits(out);
  if (answering_) return out.push_back({Awaited::rollout, kBuffer, step});
  if (config_.has_rollouts() && mode_ == RunMode::train && !last_decided_) rollout_waits(out);
  if (config_.has_rollouts() && !step_started_ && !last_decided_ && mode_ == RunMode::train) return;
  if (last_decided_ || mode_ != RunMode::train) {
    if (checkpoint_version_ < 0) out.push_back({Awaited::generated, kRollout, step});
    return;
  }
  if (!plan_) out.push_back({Awaited::step_plan, kLoader, step});
  for (const Address& owner : owners_)
    if (!votes_.contains(owner)) out.push_back({Awaited::vote, owner, step});
}

void Conductor::rollout_waits(Waits& out) const {
  WorkKey item = step_key(state_.version, attempt_);
  for (const Address& owner : owners_)
    if (!digests_.contains(owner)) out.push_back({Awaited::weights_digest, owner, item});
  item.kind = WorkKind::generate;
  for (const std::int64_t rollout : rollouts_asked_) {
    item.step = rollout;
    if (!rollouts_durable_.contains(rollout)) out.push_back({Awaited::rollout, kBuffer, item});
  }
}

// Of each replica's the first microbatch that some stage has yet to answer; the loader may hold it too.
void Conductor::evaluation_waits(Waits& out) const {
  WorkKey key = step_key(state_.version, attempt_);
  key.kind = WorkKind::evaluate;
  if (!evaluation_plan_) return out.push_back({Awaited::step_plan, kLoader, key});
  for (int r = 0; r < config_.layout.replicas; ++r) {
    bool found = false;
    for (std::int32_t m = r; m < evaluation_plan_->microbatches && !found; m += config_.layout.replicas) {
      key.microbatch = m;
      for (int s = 0; s < config_.layout.stages; ++s) {
        const Address stage = stage_address(config_, r, s);
        if (evaluation_heard_.contains({stage, m})) continue;
        if (!found) out.push_back({Awaited::evaluation, kLoader, key});
        found = true;
        out.push_back({Awaited::evaluation, stage, key});
      }
    }
  }
}

}  // namespace troupe
