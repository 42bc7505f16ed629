// What a stage waits for, told from the state that it holds.
#include <map>

#include "actors/rules/placement.h"
#include "actors/stage.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr Address kLoader{Role::loader, 0};
constexpr Address kCheckpointer{Role::checkpointer, 0};

WorkKey key_of(const Message& message) {
  if (const auto* activations = std::get_if<Activations>(&message)) return activations->key;
  if (const auto* generate = std::get_if<GenerateActivations>(&message)) return generate->batch.key;
  return {};
}

}  // namespace

void Stage::waits(Waits& out) const {
  restoring_.waits(out);
  if (restoring_.active()) return;
  if (attempt_ == kNoAttempt) return out.push_back({Awaited::restore, kConductor, {}});
  for (std::size_t i = 0; i < works_.size(); ++i)
    if (works_[i].busy) work_waits(static_cast<int>(i), out);
  if (read_back_.active() || copying_)
    out.push_back({Awaited::segment, context_.self(), step_key(owner_.version(), attempt_)});
  sender_waits(out);
  arrival_waits(out);
  step_end_waits(out);
}

void Stage::work_waits(int slot, Waits& out) const {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  if (!work.started) return start_waits(work, out);
  const Address self = context_.self();
  WorkKey key = work.key;
  key.direction = work.backward ? Direction::backward : Direction::forward;
  key.layer = layer_of(work.unit);
  if (work.segments > 0) out.push_back({Awaited::segment, self, key});
  if (work.awaited > 0) return dispatch_waits(work, key, out);
  if (work.segments > 0) return;
  if (!work.backward && !shape_.last && downstream_.entered(work.sequence)) {
    const bool sent = downstream_.unsent(work.sequence) == 0;
    const Address next = stage_address(config_, replica_, shape_.stage + 1);
    return out.push_back(sent ? Wait{Awaited::activation_gradients, next, key} : Wait{Awaited::turn, self, key});
  }
  // Its weight gradients stand behind those of an earlier microbatch; without recomputation it is done with its layers.
  if (!recomputes(work.unit)) key.layer = -1;
  out.push_back({Awaited::turn, self, key});
}

void Stage::start_waits(const Work& work, Waits& out) const {
  const Address self = context_.self();
  if (work.key.step != owner_.version()) out.push_back({Awaited::turn, self, work.key});
  if (shape_.last && !work.has_tokens && !work.generate) out.push_back({Awaited::tokens, kLoader, work.key});
  if (work.key.step != owner_.version() || copy_memory_.data == nullptr || copy_version_ == work.key.step) return;
  if (copying_)
    out.push_back({Awaited::segment, self, work.key});
  else
    out.push_back({Awaited::shared_tensor, stage_address(config_, replica_, 0), work.key});
}

// Rows that left are awaited from the shard; those that did not stand in their channel.
void Stage::dispatch_waits(const Work& work, const WorkKey& key, Waits& out) const {
  const bool forward = key.direction == Direction::forward;
  const std::int64_t sequence = forward && !is_mtp(work.unit) ? work.sequence : work.train_sequence;
  RecycledMap<int, std::size_t> unsent;
  for (int shard = 0; shard < config_.layout.expert_shards; ++shard) {
    const auto& senders = forward ? forward_ : backward_;
    const auto sender = senders.find({work.unit, shard});
    unsent[shard] = sender == senders.end() ? 0 : sender->second.unsent(sequence);
  }
  for (auto piece = work.pieces.rbegin(); piece != work.pieces.rend(); ++piece) {
    const bool item = piece->chunk.rows > 0 || !forward;
    const bool waits = item && unsent[piece->chunk.shard] > 0;
    if (waits) --unsent[piece->chunk.shard];
    if (piece->arrived) continue;
    WorkKey own = key;
    own.chunk = piece->chunk.chunk;
    if (waits)
      out.push_back({Awaited::turn, context_.self(), own});
    else
      out.push_back({Awaited::expert_result, shard_address(config_, shape_.stage, piece->chunk.shard), own});
  }
}

void Stage::sender_waits(Waits& out) const {
  for (const auto* senders : {&forward_, &backward_})
    for (const auto& [place, sender] : *senders)
      if (const ExpertBatch* batch = sender.front())
        out.push_back({Awaited::credit, shard_address(config_, shape_.stage, place.second), batch->key});
  if (const Message* message = downstream_.front())
    out.push_back({Awaited::credit, stage_address(config_, replica_, shape_.stage + 1), key_of(*message)});
}

// Of a shard those of all layers and both directions together.
void Stage::credits(std::vector<Credits>& out) const {
  std::map<int, Credits> shards;
  for (const auto* senders : {&forward_, &backward_})
    for (const auto& [place, sender] : *senders) {
      Credits& own = shards[place.second];
      own.free += sender.credits();
      own.of += config_.layout.chunk_credits;
    }
  for (auto& [shard, own] : shards) {
    own.to = shard_address(config_, shape_.stage, shard);
    out.push_back(own);
  }
  if (!shape_.last)
    out.push_back({stage_address(config_, replica_, shape_.stage + 1), downstream_.credits(),
                   config_.slots() + config_.generate_slots()});
}

// Microbatches come in increasing order.
void Stage::arrival_waits(Waits& out) const {
  int arrived = released_, busy = 0;
  for (const Work& work : works_) {
    busy += work.busy ? 1 : 0;
    arrived += work.busy && work.train() && work.key.step == owner_.version() ? 1 : 0;
  }
  const int expected = config_.train.microbatches / config_.layout.replicas;
  if (arrived >= expected || owner_.version() >= config_.train.steps) return;
  WorkKey next = step_key(owner_.version(), attempt_);
  next.microbatch = replica_ + config_.layout.replicas * arrived;
  if (busy == static_cast<int>(works_.size())) return out.push_back({Awaited::slot, context_.self(), next});
  if (shape_.first)
    out.push_back({Awaited::tokens, kLoader, next});
  else
    out.push_back({Awaited::activations, stage_address(config_, replica_, shape_.stage - 1), next});
}

void Stage::step_end_waits(Waits& out) const {
  const WorkKey step = step_key(owner_.version(), attempt_);
  const Address self = context_.self();
  if (group_.active() || snapshots_left_ > 0) out.push_back({Awaited::segment, self, step});
  if (owner_.snapshot_parts_count() > 0 && snapshots_left_ == 0 && snapshot_credits_ == 0)
    out.push_back({Awaited::credit, kCheckpointer, step});
  if (group_.active()) return;
  if (folded_ && !reduced_) {
    for (const int twin : twin_sums_.twins()) {
      const Address holder = stage_address(config_, twin, shape_.stage);
      if (!added_ && !twin_sums_.has_partial(owner_.version(), twin))
        out.push_back({Awaited::partial_sums, holder, step});
      if (added_ && !twin_sums_.has_reduced(twin)) out.push_back({Awaited::reduced_sums, holder, step});
    }
  } else if (reduced_ && !measured_) {
    out.push_back({Awaited::shared_gradient, stage_address(config_, replica_, config_.layout.stages - 1), step});
  } else if (measured_ && !held_) {
    out.push_back({Awaited::gradient_held, *shadow_, step});
  } else if (owner_.voted() && !decision_) {
    out.push_back({Awaited::decision, kConductor, step});
  }
}

}  // namespace troupe
