// Dispatch to the experts, and the end of a step: fold, reduce, vote, decide, apply, snapshot.
#include <algorithm>
#include <cstring>

#include "actors/stage.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr Address kCheckpointer{Role::checkpointer, 0};
constexpr std::uint64_t kCopyKey = 0x636F7079;  // of the digest of the embedding's read copy

Payload slice(const Payload& whole, std::size_t begin, std::size_t size) {
  return {std::shared_ptr<std::byte>(whole.data, whole.data.get() + begin), size, whole.on_device};
}

}  // namespace

OrderedSender<ExpertBatch>& Stage::sender(Direction direction, int unit, int shard) {
  return (direction == Direction::forward ? forward_ : backward_)[{unit, shard}];
}

// One payload is cut into slices for all shards: it lies on the device where that reaches them all.
PayloadPool& Stage::shards_pool() const {
  bool on_device = true;
  for (int shard = 0; shard < config_.layout.expert_shards; ++shard)
    on_device = on_device && context_.device_reaches(shard_address(config_, shape_.stage, shard));
  return context_.ops_pool(on_device);
}

// What all twins are sent.
PayloadPool& Stage::twins_pool() const {
  bool on_device = true;
  for (const int twin : twin_sums_.twins())
    on_device = on_device && context_.device_reaches(stage_address(config_, twin, shape_.stage));
  return context_.ops_pool(on_device);
}

void Stage::drain(Direction direction, int unit, int shard) {
  sender(direction, unit, shard).drain([&](ExpertBatch batch) {
    context_.post(shard_address(config_, shape_.stage, shard), std::move(batch));
  });
}

ExpertBatch Stage::expert_batch(const Work& work, const Piece& piece, Direction direction, bool send_inputs) const {
  const std::size_t row_bytes =
      static_cast<std::size_t>(config_.model.hidden_size) * bytes_of(activation_type(config_));
  const auto begin = static_cast<std::size_t>(piece.chunk.row_begin), rows = static_cast<std::size_t>(piece.chunk.rows);
  ExpertBatch batch;
  batch.key = work.key;
  batch.key.direction = direction;
  batch.key.layer = layer_of(work.unit);
  batch.key.chunk = piece.chunk.chunk;
  batch.rows = static_cast<std::int32_t>(rows);
  batch.last_chunk = piece.chunk.last;
  batch.counts = piece.chunk.counts;
  if (rows == 0) return batch;
  batch.hidden = slice(work.gathered, begin * row_bytes, rows * row_bytes);
  if (direction == Direction::backward) {
    batch.gates = slice(work.gates, begin * 4, rows * 4);
    if (send_inputs) batch.inputs = slice(work.inputs, begin * row_bytes, rows * row_bytes);
  }
  return batch;
}

// The work's rows of this unit take their turn on every shard's channel. Backward chunks go even when empty: the shard
// must learn that this microbatch has nothing to add to its sums.
void Stage::dispatch(int slot, Direction direction) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const bool backward = direction == Direction::backward;
  const Tensor& counts = layer_view(slot, work.unit).counts;
  const RecycledVector<std::int32_t> nothing(static_cast<std::size_t>(counts.cols), 0);
  const bool rows = !backward || goes_back(work.unit);
  const auto chunks = plan_dispatch(config_, rows ? counts.row<std::int32_t>(0) : nothing.data());
  auto& stashed = work.stashed[static_cast<std::size_t>(work.unit)];
  if (!backward) stashed.assign(chunks.size(), 1);
  RecycledVector<RecycledVector<ExpertBatch>> items(static_cast<std::size_t>(config_.layout.expert_shards));
  work.pieces.clear();
  work.dispatched = true;
  work.awaited = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    Piece piece{chunks[i], {}, {}, chunks[i].rows == 0};
    if (chunks[i].rows > 0 || backward)
      items[static_cast<std::size_t>(chunks[i].shard)].push_back(
          expert_batch(work, piece, direction, backward && stashed[i] == 0));
    if (!piece.arrived) ++work.awaited;
    work.pieces.push_back(std::move(piece));
  }
  work.gathered = work.gates = work.inputs = {};
  const std::int64_t sequence = backward || is_mtp(work.unit) ? work.train_sequence : work.sequence;
  const int unit = work.unit;
  for (int shard = 0; shard < config_.layout.expert_shards; ++shard) {
    sender(direction, unit, shard).enter(sequence, std::move(items[static_cast<std::size_t>(shard)]));
    drain(direction, unit, shard);
  }
}

// Runs independent lists of ops, then `next`.
void Stage::run_all(std::vector<Ops> work, void (Stage::*next)()) {
  group_.run({SegmentClass::apply, owner_.version(), 0, shape_.stage}, std::move(work),
             pack({Phase::group, static_cast<std::uint8_t>(attempt_), 0, 0}), [this, next] { (this->*next)(); });
}

void Stage::fold() { run_all(owner_.fold_lanes(), &Stage::share_partial_sums); }

// Every twin adds one part of the sums for all: it gets this replica's.
void Stage::share_partial_sums() {
  if (config_.layout.replicas == 1 || owner_.lane(0).cols == 0) return sum_shared_uses();
  std::vector<Ops> work;
  for (const int twin : twin_sums_.twins()) {
    PayloadPool& pool = context_.pool_to(stage_address(config_, twin, shape_.stage));
    for (const SumRange& range : twin_sums_.ranges(twin)) {
      Payload sums = pool.take(static_cast<std::size_t>(range.count) * 4);
      owner_.give_sums(range, sums, work);
      sums_out_.emplace_back(twin, PartialSums{owner_.version(), attempt_, replica_, std::move(sums), range.begin});
    }
  }
  run_all(std::move(work), &Stage::send_partial_sums);
}

void Stage::send_partial_sums() {
  for (auto& [twin, sums] : sums_out_) context_.post(stage_address(config_, twin, shape_.stage), std::move(sums));
  sums_out_.clear();
  folded_ = true;
  add_own_part();
}

void Stage::on(const PartialSums& sums, const Address&) {
  if (stale(sums.attempt) || sums.step < owner_.version() || (added_ && sums.step == owner_.version())) return;
  twin_sums_.take(sums, mutant(Mutant::sums_under_wrong_step) ? owner_.version() : sums.step);
  add_own_part();
}

// When all replicas' sums of the own part are here.
void Stage::add_own_part() {
  if (!folded_ || added_ || group_.active()) return;
  for (const int twin : twin_sums_.twins())
    if (!twin_sums_.has_partial(owner_.version(), twin)) return;
  std::vector<Ops> work;
  PayloadPool& pool = twins_pool();
  const SumRange part = part_of_sums(owner_.lane(0).cols, config_.layout.replicas, replica_);
  for (const SumRange& range : twin_sums_.ranges(replica_)) {
    Payload sums = pool.take(static_cast<std::size_t>(range.count) * 4);
    owner_.add_twins(part, range, twin_sums_.partial(owner_.version(), range), sums, work);
    part_out_.push_back({owner_.version(), attempt_, range.begin, std::move(sums)});
  }
  run_all(std::move(work), &Stage::send_own_part);
}

void Stage::send_own_part() {
  for (const int twin : twin_sums_.twins())
    for (const ReducedSums& sums : part_out_) context_.post(stage_address(config_, twin, shape_.stage), sums);
  part_out_.clear();
  twin_sums_.forget_partial(owner_.version());
  added_ = true;
  take_parts();
}

void Stage::on(const ReducedSums& sums, const Address&) {
  if (stale(sums.attempt) || sums.step < owner_.version() || reduced_) return;
  CHECK(folded_ && sums.step == owner_.version(), "step {} is added without this replica's sums", sums.step);
  twin_sums_.take(sums);
  take_parts();
}

// When the own part is added and all others are here.
void Stage::take_parts() {
  if (!added_ || group_.active()) return;
  std::vector<Ops> work;
  for (const int twin : twin_sums_.twins()) {
    if (!twin_sums_.has_reduced(twin)) return;
    for (const SumRange& range : twin_sums_.ranges(twin)) owner_.take_sums(range, twin_sums_.reduced(range), work);
  }
  run_all(std::move(work), &Stage::sum_shared_uses);
}

// Uses of shared tensors join their owner's gradient: here, or in the first stage.
void Stage::sum_shared_uses() {
  twin_sums_.forget_reduced();
  std::vector<Ops> work;
  PayloadPool& pool = context_.pool_to(stage_address(config_, replica_, 0));
  for (const SharedUse& use : uses_) {
    if (owner_.block().has(use.parameter)) continue;
    const Tensor sums = owner_.extra(0, use.begin, use.rows, use.cols);
    shared_out_.emplace_back(use.use, pool.take(static_cast<std::size_t>(sums.elements()) * 4));
    work.push_back({Copy{sums, tensor_of(shared_out_.back().second, use.rows, use.cols)}});
  }
  run_all(std::move(work), &Stage::send_shared_uses);
}

void Stage::send_shared_uses() {
  for (auto& [use, sums] : shared_out_)
    context_.post(stage_address(config_, replica_, 0),
                  SharedGradient{owner_.version(), attempt_, use, std::move(sums)});
  shared_out_.clear();
  reduced_ = true;
  add_shared();
}

void Stage::on(const SharedGradient& gradient, const Address&) {
  if (stale(gradient.attempt) || gradient.step < owner_.version()) return;
  shared_in_[{gradient.step, gradient.use}] = gradient.sums;
  add_shared();
}

void Stage::add_shared() {
  std::size_t expected = 0;
  if (shape_.first && !shape_.last) {
    StageShape last = shape_;
    last.last = true;
    for (const SharedUse& use : shared_uses(config_, last))
      expected += use.parameter == "model.embed_tokens.weight" ? 1 : 0;
  }
  std::size_t arrived = 0;
  for (const auto& [key, payload] : shared_in_) arrived += key.first == owner_.version() ? 1 : 0;
  if (!reduced_ || arrived < expected || group_.active()) return;
  Ops ops;
  for (const SharedUse& use : uses_) {
    if (!owner_.block().has(use.parameter)) continue;
    const Tensor sum = owner_.gradient(owner_.trained().index(use.parameter));
    ops.push_back(Add{sum, owner_.extra(0, use.begin, use.rows, use.cols), sum});
  }
  for (const auto& [key, payload] : shared_in_) {
    if (key.first != owner_.version()) continue;
    const Tensor sum = owner_.gradient(owner_.trained().index("model.embed_tokens.weight"));
    ops.push_back(Add{sum, tensor_of(payload, sum.rows, sum.cols), sum});
  }
  std::vector<Ops> work;
  if (!ops.empty()) work.push_back(std::move(ops));
  run_all(std::move(work), &Stage::give_gradient);
}

// The gradient is complete: its copy gets it while its squares are summed.
void Stage::give_gradient() {
  std::erase_if(shared_in_, [&](const auto& entry) { return entry.first.first <= owner_.version(); });
  held_ = !shadow_;
  if (held_) return measure();
  gradient_out_ = context_.pool_to(*shadow_).take(owner_.gradient_bytes());
  run_all(owner_.give_gradient(gradient_out_), &Stage::measure);
}

void Stage::measure() {
  if (shadow_) context_.post(*shadow_, ShadowGradient{owner_.version(), attempt_, std::exchange(gradient_out_, {})});
  std::vector<Ops> work = owner_.measure();
  if (capture_ != nullptr && capture_->gradients)
    step_captured_.add_gradients(work.emplace_back(), context_.pool(), owner_);
  run_all(std::move(work), &Stage::measured);
}

void Stage::on(const GradientHeld& held, const Address&) {
  if (stale(held.attempt) || restoring_.active() || held.step != owner_.version()) return;
  held_ = true;
  if (measured_ && !mutant(Mutant::vote_before_copy)) vote();
}

void Stage::measured() {
  measured_ = true;
  if (held_ || mutant(Mutant::vote_before_copy)) vote();
}

void Stage::vote() {
  if (capture_ != nullptr) step_captured_.show(*capture_);
  Vote vote;
  vote.step = owner_.version();
  vote.attempt = attempt_;
  vote.squares = owner_.squares();
  for (const auto& [layer, counts] : counts_) vote.counts.push_back({layer, counts});
  vote.losses = losses_;
  owner_.set_voted();
  context_.post(kConductor, std::move(vote));
}

void Stage::on(const Decision& decision, const Address&) {
  if (stale(decision.attempt) || decision.step != owner_.version() || decision_) return;  // a second one is ignored
  decision_ = decision;
  owner_.decided(decision);
  if (snapshots_left_ == 0) apply_decision(decision);
}

void Stage::apply_decision(const Decision& decision) { run_all(owner_.apply(decision), &Stage::encode); }

void Stage::encode() {
  run_all(owner_.encode(false), capture_ != nullptr ? &Stage::capture_router_bias : &Stage::applied);
}

void Stage::applied() {
  const Decision decision = *decision_;
  owner_.committed(decision);
  decision_.reset();
  begin_step();
  if (capture_ != nullptr) step_captured_.show(*capture_);
  copy_embedding();
  begin_read_back();
  if (decision.checkpoint) begin_snapshot();
  if (copied_early_) on(*std::exchange(copied_early_, std::nullopt), {});
  for (std::size_t i = 0; i < works_.size(); ++i) try_start(static_cast<int>(i));
}

// The last stage reads the embedding too, where it is tied to the head or multi-token prediction embeds.
bool Stage::sends_copy() const {
  StageShape last = shape_;
  last.last = true;
  last.first = false;
  return shape_.first && !shape_.last && reads_embedding_copy(config_, last);
}

void Stage::copy_embedding() {
  if (!sends_copy()) return;
  const Tensor table = owner_.masters("model.embed_tokens.weight", "model.embed_tokens.weight");
  PayloadPool& pool = context_.pool_to(stage_address(config_, replica_, config_.layout.stages - 1));
  copy_source_ = pool.take(static_cast<std::size_t>(table.elements()) * 4);
  const Tensor values = tensor_of(copy_source_, table.rows, table.cols);
  Ops ops{Copy{table, values}};
  if (copy_digest_.data != nullptr) ops.push_back(Digest{table, {}, copy_digest(), kCopyKey});
  copying_ = true;
  restoring_.submit({SegmentClass::apply, owner_.version(), 0, 0}, std::move(ops),
                    pack({Phase::copy_out, static_cast<std::uint8_t>(attempt_), 0, 0}));
}

void Stage::send_embedding_copy() {
  copying_ = false;
  context_.post(stage_address(config_, replica_, config_.layout.stages - 1),
                SharedTensor{owner_.version(), attempt_, std::exchange(copy_source_, {}), digest_found()});
}

void Stage::begin_read_back() {
  read_back_.begin(attempt_, pack({Phase::read_back, static_cast<std::uint8_t>(attempt_), 0, 0}),
                   copy_memory_.data != nullptr);
}

Tensor Stage::copy_digest() const { return {copy_digest_.data, 1, 4, 4, Dtype::i32}; }

// Of what the last segment with a Digest of the copy found; 0 without rollouts.
std::uint64_t Stage::digest_found() const {
  std::uint64_t found = 0;
  if (copy_digest_.data != nullptr) std::memcpy(&found, copy_digest_.data, sizeof found);
  return found;
}

std::string Stage::copy_problem() const {
  if (digest_found() == copy_wanted_) return "";
  return fmt::format(
      "the copy of model.embed_tokens.weight in {} isn't what its owner sent for version {}; nothing was "
      "learned from it; resume from the last checkpoint",
      to_string(context_.self()), owner_.version());
}

void Stage::begin_snapshot() {
  if (replica_ != 0) return;
  std::vector<Ops> work = owner_.begin_snapshot(attempt_);
  snapshots_left_ = static_cast<int>(work.size());
  for (Ops& ops : work)
    restoring_.submit({SegmentClass::apply, owner_.version(), 0, 0, true}, std::move(ops),
                      pack({Phase::snapshot, static_cast<std::uint8_t>(attempt_), 0, 0}));
  send_snapshot();  // none of it may have to be copied
}

// The owner's new version of the embedding: taken in once this owner is at that version too.
void Stage::on(const SharedTensor& tensor, const Address&) {
  if (restoring_.active() || is_future(tensor.attempt, attempt_) ||
      (tensor.attempt == attempt_ && tensor.version > owner_.version())) {
    copied_early_ = tensor;
    return;
  }
  if (stale(tensor.attempt)) return;
  const std::int64_t v = config_.model.vocab_size, d = config_.model.hidden_size;
  copy_source_ = tensor.values;
  copying_ = true;
  const Tensor values = tensor_of(copy_source_, v, d);
  Ops ops{Copy{values, Tensor{copy_memory_.data, v, d, d, Dtype::f32}}};
  if (copy16_memory_.data != nullptr) ops.push_back(Copy{values, Tensor{copy16_memory_.data, v, d, d, Dtype::bf16}});
  copy_wanted_ = tensor.digest;
  if (copy_digest_.data != nullptr)
    ops.push_back(Digest{{copy_memory_.data, v, d, d, Dtype::f32}, {}, copy_digest(), kCopyKey});
  restoring_.submit({SegmentClass::apply, owner_.version(), 0, 0}, std::move(ops),
                    pack({Phase::copy_in, static_cast<std::uint8_t>(attempt_), 0, 0}));
}

void Stage::send_snapshot() {
  auto& parts = owner_.snapshot_parts();
  while (snapshots_left_ == 0 && snapshot_credits_ > 0 && !parts.empty()) {
    context_.post(kCheckpointer, std::move(parts.front()));
    parts.pop_front();
    --snapshot_credits_;
  }
}

}  // namespace troupe
