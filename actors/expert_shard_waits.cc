// What an expert shard waits for, told from the state that it holds.
#include "actors/expert_shard.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr Address kCheckpointer{Role::checkpointer, 0};

}  // namespace

void ExpertShard::waits(Waits& out) const {
  restoring_.waits(out);
  if (restoring_.active()) return;
  if (attempt_ == kNoAttempt) return out.push_back({Awaited::restore, kConductor, {}});
  if (read_back_.active()) out.push_back({Awaited::segment, context_.self(), step_key(owner_.version(), attempt_)});
  for (const auto& [number, chunk] : chunks_) {
    const WorkKey& key = chunk.batch.key;
    const auto turn = turns_.find(key.layer);
    const bool stands = key.direction == Direction::backward && turn != turns_.end() &&
                        turn->second.ready.contains({key.microbatch, key.chunk});
    out.push_back({stands ? Awaited::turn : Awaited::segment, context_.self(), key});
  }
  for (const auto& [batch, from] : early_) out.push_back({Awaited::turn, context_.self(), batch.key});
  turn_waits(out);
  step_end_waits(out);
}

// Whose rows the strict sums stand at: the least microbatch, and of its layers the one that goes backward first.
void ExpertShard::turn_waits(Waits& out) const {
  std::optional<WorkKey> least;
  for (const int layer : layers_) {
    const auto found = turns_.find(layer);
    const LayerTurn turn = found == turns_.end() ? LayerTurn{} : found->second;
    if (turn.microbatch >= config_.train.microbatches || owner_.version() >= config_.train.steps) continue;
    WorkKey key = step_key(owner_.version(), attempt_);
    key.direction = Direction::backward;
    key.microbatch = turn.microbatch;
    key.layer = layer;
    key.chunk = turn.chunk;
    const auto same = [&](const auto& entry) { return entry.second.batch.key == key; };
    if (std::any_of(chunks_.begin(), chunks_.end(), same)) continue;
    if (!least || key.microbatch <= least->microbatch) least = key;
  }
  if (!least) return;
  const int replica = least->microbatch % config_.layout.replicas;
  out.push_back({Awaited::expert_batch, stage_address(config_, replica, shape_.stage), *least});
}

void ExpertShard::step_end_waits(Waits& out) const {
  const WorkKey step = step_key(owner_.version(), attempt_);
  if (group_.active() || snapshots_left_ > 0) out.push_back({Awaited::segment, context_.self(), step});
  if (owner_.snapshot_parts_count() > 0 && snapshots_left_ == 0 && snapshot_credits_ == 0)
    out.push_back({Awaited::credit, kCheckpointer, step});
  if (measured_ && !held_) out.push_back({Awaited::gradient_held, *shadow_, step});
  if (owner_.voted() && !decision_) out.push_back({Awaited::decision, kConductor, step});
}

}  // namespace troupe
