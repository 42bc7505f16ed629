// What the smaller actors wait for, told from the state that they hold.
#include "actors/checkpointer.h"
#include "actors/judge.h"
#include "actors/loader.h"
#include "actors/restoring.h"
#include "actors/rollout.h"
#include "actors/rollout_buffer.h"
#include "actors/rules/placement.h"
#include "actors/rules/recovery.h"
#include "actors/shadow.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};

}  // namespace

void Restoring::waits(Waits& out) const {
  for (const auto& [token, leaving] : leaving_)
    out.push_back({Awaited::segment, context_.self(), step_key(leaving.first.version, leaving.first.attempt)});
  if (!active()) return;
  const WorkKey item = step_key(restore_.version, restore_.attempt);
  const bool fetches = step_ == Step::fetch;
  if (fetches && asked_ > arrived_)
    out.push_back({Awaited::state_part, {restore_.source_role, restore_.source_index}, item});
  if (!fetches || !coming_.empty()) out.push_back({Awaited::segment, context_.self(), item});
}

void Shadow::waits(Waits& out) const {
  restoring_.waits(out);
  if (restoring_.active()) return;
  if (attempt_ == kNoAttempt) return out.push_back({Awaited::restore, kConductor, {}});
  const WorkKey step = step_key(owner_.version(), attempt_);
  if (group_.active())
    out.push_back({Awaited::segment, context_.self(), step});
  else if (owner_.voted())
    out.push_back({Awaited::decision, kConductor, step});
  else
    out.push_back({Awaited::shadow_gradient, of_, step});
}

void Loader::credits(std::vector<Credits>& out) const {
  for (std::size_t replica = 0; replica < credits_.size(); ++replica)
    out.push_back({stage_address(config_, static_cast<int>(replica), 0), credits_[replica], config_.slots()});
}

void Loader::waits(Waits& out) const {
  if (attempt_ == kNoAttempt) return out.push_back({Awaited::restore, kConductor, {}});
  bool idle = true;
  for (std::size_t r = 0; r < orders_.size(); ++r) {
    if (orders_[r].empty()) continue;
    idle = false;
    out.push_back({Awaited::credit, stage_address(config_, static_cast<int>(r), 0), orders_[r].front().key});
  }
  if (begun_ >= 0) out.push_back({Awaited::tokens, {Role::rollout_buffer, 0}, step_key(begun_, attempt_)});
  if (idle) out.push_back({Awaited::start, kConductor, step_key(next_step_, attempt_)});
}

void Checkpointer::waits(Waits& out) const {
  if (version_ < 0) return;
  const WorkKey item = step_key(version_, attempt_);
  if (finish_token_ > 0 || !owed_.empty()) return out.push_back({Awaited::disk, context_.self(), item});
  for (const auto& [owner, elements] : missing_)
    if (elements > 0) out.push_back({Awaited::snapshot_part, owner, item});
}

void Rollout::waits(Waits& out) const {
  if (asked_.empty()) return;
  WorkKey item = step_key(version_, attempt_);
  item.kind = WorkKind::generate;
  item.microbatch = asked_.begin()->first;  // the oldest
  for (int s = 0; s < config_.layout.stages; ++s)
    out.push_back({Awaited::generated, stage_address(config_, replica_, s), item});
}

void RolloutBuffer::waits(Waits& out) const {
  WorkKey item = step_key(version_, attempt_);
  item.kind = WorkKind::generate;
  for (const auto& [rollout, one] : collecting_) {
    item.step = one.of.rollout;
    for (const Address& writer : rollouts(config_)) out.push_back({Awaited::answers, writer, item});
    out.push_back({Awaited::answers, {Role::judge, 0}, item});
  }
  for (const auto& [rollout, one] : scoring_) {
    for (const auto& [kind, microbatch] : one.awaited) {
      WorkKey scored = step_key(one.of.version, attempt_);
      scored.kind = kind;
      scored.microbatch = microbatch;
      const int replica = microbatch % config_.layout.replicas;
      out.push_back({Awaited::evaluation, {Role::loader, 0}, scored});
      for (int s = 0; s < config_.layout.stages; ++s)
        out.push_back({Awaited::evaluation, stage_address(config_, replica, s), scored});
    }
  }
  for (const auto& [token, done] : writing_) {
    item.step = done.of.rollout;
    out.push_back({Awaited::disk, context_.self(), item});
  }
}

void Judge::waits(Waits& out) const {
  if (cases_.empty()) return;
  const Sampled& oldest = cases_.begin()->second.sampled;
  WorkKey item = step_key(oldest.of.rollout, attempt_);
  item.kind = WorkKind::generate;
  item.microbatch = oldest.prompt;
  item.chunk = oldest.sample;
  out.push_back({Awaited::verdict, context_.self(), item});
}

}  // namespace troupe
