#include "actors/expert_shard.h"

#include <algorithm>
#include <utility>

#include "actors/rules/dispatch.h"
#include "actors/rules/recovery.h"
#include "actors/rules/trainable.h"
#include "actors/stage_memory.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr Address kCheckpointer{Role::checkpointer, 0};
constexpr std::size_t kExpertsTogether = 4;  // whose weight gradients are one segment: a grain of about a millisecond

std::uint64_t pack(int phase, std::uint32_t attempt, std::int64_t number) {
  return static_cast<std::uint64_t>(phase) | (static_cast<std::uint64_t>(attempt) & 0xFF) << 8 |
         static_cast<std::uint64_t>(number) << 16;
}

// Where a chunk is all rows of a microbatch and came from the same node. A part of a payload would hold all of it.
bool keeps_rows(const Config& config, std::int64_t microbatch) {
  return config.layout.nodes == 1 && config.layout.expert_shards == 1 && chunks_max(config, microbatch) == 1;
}

}  // namespace

// A forward chunk's slot is free before its answer goes: its channel's credits bound them, or the microbatches in flight.
// A backward chunk's stays until its turn in the strict sum, maybe after its stage is done with the microbatch: credits
// bound them, or the step.
ShardPool shard_pool(const Config& config, const StageShape& shape) {
  ShardPool pool;
  const std::vector<int> moe_layers = moe_layers_of(config, shape);
  const auto layers = static_cast<std::int64_t>(moe_layers.size());
  const std::int64_t microbatch =
      static_cast<std::int64_t>(config.microbatch_rows()) * config.model.num_experts_per_tok;
  pool.rows = std::min<std::int64_t>(config.layout.chunk_rows_max, microbatch);
  const std::int64_t chunks = chunks_max(config, microbatch);
  const std::int64_t in_flight = static_cast<std::int64_t>(config.layout.replicas) * config.slots();
  const std::int64_t credits = layers * config.layout.replicas * config.layout.chunk_credits;  // of one direction
  const std::int64_t generated = static_cast<std::int64_t>(config.layout.replicas) * config.generate_slots();
  pool.in_flight = static_cast<int>(std::min(credits, (in_flight + generated) * chunks) +
                                    std::min(credits, config.train.microbatches * layers * chunks));
  const double mean_chunks =
      std::max(1.0, static_cast<double>(microbatch) / config.layout.expert_shards / static_cast<double>(pool.rows));
  const auto kept = std::count_if(moe_layers.begin(), moe_layers.end(), [&](int l) { return goes_back(config, l); });
  pool.stash = static_cast<int>(static_cast<double>(in_flight * kept) * mean_chunks * config.layout.stash_factor);
  pool.keeps_rows = keeps_rows(config, microbatch);
  pool.rows_bytes = static_cast<std::size_t>(pool.rows * config.model.hidden_size) * bytes_of(activation_type(config));
  Carver measure;
  carve_chunk(measure, config.model, pool.rows, activation_type(config), config.is_fp8(), pool.keeps_rows);
  pool.chunk_bytes = (measure.used() + 63) / 64 * 64;
  return pool;
}

ExpertShard::ExpertShard(const Context& context, const Config& config, int stage, int shard, Capture* capture)
    : context_(context),
      config_(config),
      shape_(stage_shapes(config)[static_cast<std::size_t>(stage)]),
      capture_(capture),
      layers_(moe_layers_of(config, shape_)),
      owner_(context, config, shard_parameters(config, shape_, shard), 1, 1, 0),
      restoring_(context, config, owner_, [this](const Restore& r, const std::string& problem) { enter(r, problem); }),
      read_back_(context, owner_, restoring_),
      pool_(shard_pool(config, shape_)) {
  const auto all_shadows = shadows(config);
  if (const auto own = all_shadows.find(context.self()); own != all_shadows.end()) shadow_ = own->second;
  const int count = pool_.in_flight + pool_.stash;
  memory_ = context_.allocate(pool_.chunk_bytes * static_cast<std::size_t>(count), Place::device);
  for (int i = 0; i < count; ++i) {
    Carver carver(static_cast<char*>(memory_.data) + pool_.chunk_bytes * static_cast<std::size_t>(i));
    slots_.push_back(
        carve_chunk(carver, config.model, pool_.rows, activation_type(config), config.is_fp8(), pool_.keeps_rows));
  }
  const ExpertRange range = experts_of(config, shard);
  for (const int layer : layers_) {
    for (int e = range.begin; e < range.end; ++e) {
      const std::string p = fmt::format("model.layers.{}.mlp.experts.{}.", layer, e);
      const std::string gate = p + "gate_proj.weight", up = p + "up_proj.weight", down = p + "down_proj.weight";
      weights_[layer].push_back({owner_.matrices(gate, up), owner_.matrices(down, down)});
      accumulators_[layer].push_back({owner_.accumulators(0, gate, up), owner_.accumulators(0, down, down)});
      if (config.has_reference())
        reference_[layer].push_back({owner_.reference_matrices(gate, up), owner_.reference_matrices(down, down)});
    }
  }
}

// From here on nothing of an older attempt counts.
void ExpertShard::on(const Restore& restore, const Address&) {
  if (restoring_.begin(restore)) attempt_ = restore.attempt;
}

void ExpertShard::enter(const Restore& restore, const std::string& problem) {
  attempt_ = restore.attempt;
  chunks_.clear();
  stash_.clear();
  turns_.clear();
  early_.clear();
  decision_.reset();
  stash_used_ = layers_done_ = snapshot_credits_ = snapshots_left_ = 0;
  group_.forget();
  measured_ = held_ = false;
  free_.clear();
  for (int i = static_cast<int>(slots_.size()) - 1; i >= 0; --i) free_.push_back(i);
  context_.post(kConductor, Restored{restore.version, restore.attempt, problem});
  read_back_.begin(attempt_, pack(static_cast<int>(Phase::read_back), attempt_, 0), false);
  if (restore.checkpoint) begin_snapshot();
  for (const Credit& credit : std::exchange(early_credits_, {})) on(credit, {});
  for (int r = 0; r < config_.layout.replicas; ++r)
    for (const int layer : layers_)
      for (const Channel channel : {Channel::dispatch_forward, Channel::dispatch_backward})
        context_.post(stage_address(config_, r, shape_.stage),
                      Credit{channel, layer, config_.layout.chunk_credits, attempt_});
}

void ExpertShard::on(const Credit& credit, const Address&) {
  if (restoring_.active() || is_future(credit.attempt, attempt_)) {
    early_credits_.push_back(credit);
    return;
  }
  if (credit.attempt != attempt_ || credit.channel != Channel::snapshot) return;
  snapshot_credits_ += credit.count;
  send_snapshot();
}

int ExpertShard::take_slot() {
  CHECK(!free_.empty(), "shard {}: a chunk came without a credit", context_.self().index);
  const int slot = free_.back();
  free_.pop_back();
  return slot;
}

void ExpertShard::free_slot(int slot) {
  if (slot >= 0) free_.push_back(slot);
}

void ExpertShard::grant(const Address& to, Direction direction, int layer) {
  context_.post(to, Credit{direction == Direction::forward ? Channel::dispatch_forward : Channel::dispatch_backward,
                           layer, 1, attempt_});
}

void ExpertShard::submit(SegmentClass segment_class, const Chunk& chunk, Phase phase, Ops ops, const SegmentWay& way) {
  const WorkKey& key = chunk.batch.key;
  const SegmentClass actual = key.kind == WorkKind::train ? segment_class : SegmentClass::evaluate;
  const std::int32_t lead =
      segment_class == SegmentClass::forward ? forward_lead(config_, shape_.stage) : SegmentKey::kNoLead;
  restoring_.submit({actual, key.step, key.microbatch, key.layer, false, lead, false, side_of(config_, key.kind)},
                    std::move(ops), pack(static_cast<int>(phase), attempt_, chunk.number), way);
}

// What it reads and writes lies where segments alone write; with several nodes a transport may, as soon as it is free.
bool ExpertShard::goes_early(const Chunk& chunk) const {
  return config_.layout.nodes == 1 && chunk.batch.hidden.on_device;
}

void ExpertShard::on(const ExpertBatch& batch, const Address& from) {
  if (batch.key.attempt != attempt_ && !mutant(Mutant::chunk_of_old_attempt)) return;
  if (batch.key.step == owner_.version() && !decision_) return begin(batch, from);
  if (batch.key.step <= owner_.version() && !decision_) return;  // a late duplicate
  early_.emplace_back(batch, from);
}

void ExpertShard::begin(const ExpertBatch& batch, const Address& from) {
  const std::int64_t number = next_number_++;
  Chunk& chunk = chunks_[number];
  chunk.batch = batch;
  chunk.from = from;
  chunk.number = number;
  batch.key.direction == Direction::forward ? begin_forward(chunk) : begin_backward(chunk);
}

// Payloads outlive the segments that read them: their chunk has them until its last one is done.
void ExpertShard::bring_rows(Ops& ops, Chunk& chunk, const Payload& rows) {
  if (pool_.keeps_rows)
    chunk.rows = rows;
  else
    ops.push_back(Copy{tensor_of(rows, chunk.batch.rows, config_.model.hidden_size, activation_type(config_)),
                       memory_of(chunk).x});
}

ChunkSlot ExpertShard::memory_of(const Chunk& chunk) const {
  ChunkSlot slot = first_rows(slots_[static_cast<std::size_t>(chunk.slot)], chunk.batch.rows);
  const auto kept = [&](const Payload& rows) {
    return tensor_of(rows, chunk.batch.rows, config_.model.hidden_size, activation_type(config_));
  };
  if (chunk.rows) slot.x = kept(chunk.rows);
  if (chunk.slopes) slot.dy = kept(chunk.slopes);
  return slot;
}

void ExpertShard::begin_forward(Chunk& chunk) {
  const ExpertBatch& batch = chunk.batch;
  const Dtype wire = activation_type(config_);
  const std::int64_t rows = batch.rows, d = config_.model.hidden_size;
  chunk.slot = take_slot();
  chunk.hidden = context_.pool_to(chunk.from).take(static_cast<std::size_t>(rows * d) * bytes_of(wire));
  Ops ops;
  bring_rows(ops, chunk, batch.hidden);
  expert_forward(ops, weights_of(batch.key), batch.counts, memory_of(chunk), tensor_of(chunk.hidden, rows, d, wire));
  submit(SegmentClass::forward, chunk, Phase::forward, std::move(ops), {.early = goes_early(chunk)});
}

void ExpertShard::forward_done(Chunk& chunk) {
  const ExpertBatch& batch = chunk.batch;
  chunk.stashed = batch.key.kind == WorkKind::train && goes_back(config_, batch.key.layer) && stash_used_ < pool_.stash;
  if (chunk.stashed) {
    ++stash_used_;
    stash_[{batch.key.layer, batch.key.microbatch, batch.key.chunk}] = {chunk.slot, chunk.rows};
  } else {
    free_slot(chunk.slot);
  }
  context_.post(chunk.from, ExpertResult{batch.key, batch.rows, chunk.stashed, chunk.hidden, {}});
  grant(chunk.from, Direction::forward, batch.key.layer);
  chunks_.erase(chunk.number);
}

void ExpertShard::begin_backward(Chunk& chunk) {
  const ExpertBatch& batch = chunk.batch;
  const Dtype wire = activation_type(config_);
  const std::int64_t rows = batch.rows, d = config_.model.hidden_size;
  if (rows == 0) return backward_done(chunk);
  const auto kept = stash_.find({batch.key.layer, batch.key.microbatch, batch.key.chunk});
  chunk.stashed = kept != stash_.end();
  chunk.slot = chunk.stashed ? kept->second.slot : take_slot();
  if (chunk.stashed) {
    chunk.rows = std::move(kept->second.rows);
    stash_.erase(kept);
  }
  CHECK(chunk.stashed || batch.inputs, "{}: neither stashed nor sent again", to_string(batch.key));
  Tensor dx;
  if (passes_gradient(config_, batch.key.layer)) {
    chunk.hidden = context_.pool_to(chunk.from).take(static_cast<std::size_t>(rows * d) * bytes_of(wire));
    dx = tensor_of(chunk.hidden, rows, d, wire);
  }
  chunk.dots = context_.pool_to(chunk.from).take(static_cast<std::size_t>(rows) * 4);
  Ops ops;
  if (!chunk.stashed) bring_rows(ops, chunk, batch.inputs);
  if (pool_.keeps_rows) chunk.slopes = batch.hidden;
  expert_backward(ops, weights_of(batch.key), batch.counts, memory_of(chunk), !chunk.stashed,
                  tensor_of(batch.hidden, rows, d, wire), tensor_of(batch.gates, rows, 1), dx,
                  tensor_of(chunk.dots, rows, 1));
  submit(SegmentClass::backward, chunk, Phase::backward, std::move(ops), {.early = goes_early(chunk)});
}

// The answer goes at once; the chunk keeps its slot until its turn in the strict sum.
void ExpertShard::backward_done(Chunk& chunk) {
  const ExpertBatch& batch = chunk.batch;
  if (batch.rows > 0) context_.post(chunk.from, ExpertResult{batch.key, batch.rows, false, chunk.hidden, chunk.dots});
  chunk.hidden = chunk.dots = {};
  chunk.batch.hidden = chunk.batch.inputs = chunk.batch.gates = {};
  turns_[batch.key.layer].ready[{batch.key.microbatch, batch.key.chunk}] = chunk.number;
  run_weights(batch.key.layer);
}

// Chunks take their turn in the order of (microbatch, chunk). What adds to one expert is a strand: it stays in that order,
// and what waits for a thread runs together.
void ExpertShard::run_weights(int layer) {
  LayerTurn& turn = turns_[layer];
  for (;;) {
    const auto next =
        mutant(Mutant::chunks_by_arrival) ? turn.ready.begin() : turn.ready.find({turn.microbatch, turn.chunk});
    if (next == turn.ready.end()) return;
    Chunk& chunk = chunks_.at(next->second);
    turn.ready.erase(next);
    turn.chunk = chunk.batch.last_chunk ? 0 : turn.chunk + 1;
    turn.microbatch += chunk.batch.last_chunk ? 1 : 0;
    ++turn.under_way;
    submit_weights(chunk);
  }
}

// A segment for some experts at a time: they are independent.
void ExpertShard::submit_weights(Chunk& chunk) {
  const int layer = chunk.batch.key.layer;
  const auto& accumulators = accumulators_.at(layer);
  const auto place = static_cast<std::uint32_t>(std::find(layers_.begin(), layers_.end(), layer) - layers_.begin());
  const auto groups = static_cast<std::uint32_t>((accumulators.size() + kExpertsTogether - 1) / kExpertsTogether);
  RecycledVector<std::pair<std::uint32_t, Ops>> work;
  for (std::uint32_t group = 0; group < groups && chunk.batch.rows > 0; ++group) {
    Ops ops;
    expert_weight_gradients(ops, chunk.batch.counts, memory_of(chunk), accumulators, group * kExpertsTogether,
                            kExpertsTogether);
    if (!ops.empty()) work.emplace_back(1 + place * groups + group, std::move(ops));
  }
  chunk.weights_left = static_cast<int>(work.size());
  if (work.empty()) return weights_done(chunk);
  for (auto& [strand, ops] : work)
    submit(SegmentClass::weight_gradient, chunk, Phase::weights, std::move(ops), {.strand = strand});
}

void ExpertShard::weights_done(Chunk& chunk) {
  if (--chunk.weights_left > 0) return;
  const int layer = chunk.batch.key.layer;
  LayerTurn& turn = turns_[layer];
  --turn.under_way;
  if (chunk.stashed) --stash_used_;
  free_slot(chunk.slot);
  if (chunk.batch.rows > 0 || !mutant(Mutant::empty_chunk_credit_kept)) grant(chunk.from, Direction::backward, layer);
  chunks_.erase(chunk.number);
  const bool all = turn.microbatch == config_.train.microbatches && turn.under_way == 0;
  if (all && ++layers_done_ == static_cast<int>(layers_.size())) step_done();
}

void ExpertShard::on(const SegmentDone& done, const Address&) {
  if (restoring_.takes(done)) return;
  const auto phase = static_cast<Phase>(done.token & 0xFF);
  const auto number = static_cast<std::int64_t>(done.token >> 16);
  switch (phase) {
    case Phase::forward:
      return forward_done(chunks_.at(number));
    case Phase::backward:
      return backward_done(chunks_.at(number));
    case Phase::weights:
      return weights_done(chunks_.at(number));
    case Phase::group:
      return group_.segment_done();
    case Phase::snapshot:
      if (--snapshots_left_ == 0) {
        send_snapshot();
        if (decision_) apply_decision();
      }
      return;
    case Phase::read_back:
      return read_back_.segment_done();
  }
}

// Where all of its experts are frozen there is nothing to run.
void ExpertShard::run_all(std::vector<Ops> work, void (ExpertShard::*next)()) {
  group_.run({SegmentClass::apply, owner_.version(), 0, shape_.stage}, std::move(work),
             pack(static_cast<int>(Phase::group), attempt_, 0), [this, next] { (this->*next)(); });
}

// The gradient is complete: its copy gets it while its squares are summed.
void ExpertShard::step_done() {
  held_ = !shadow_;
  if (held_) return measure();
  gradient_ = context_.pool_to(*shadow_).take(owner_.gradient_bytes());
  run_all(owner_.give_gradient(gradient_), &ExpertShard::measure);
}

void ExpertShard::measure() {
  if (shadow_) context_.post(*shadow_, ShadowGradient{owner_.version(), attempt_, std::exchange(gradient_, {})});
  std::vector<Ops> work = owner_.measure();
  if (capture_ != nullptr && capture_->gradients) captured_.add_gradients(work.emplace_back(), context_.pool(), owner_);
  run_all(std::move(work), &ExpertShard::measured);
}

void ExpertShard::measured() {
  measured_ = true;
  if (held_ || mutant(Mutant::vote_before_copy)) vote();
}

void ExpertShard::on(const GradientHeld& held, const Address&) {
  if (held.attempt != attempt_ || restoring_.active() || held.step != owner_.version()) return;
  held_ = true;
  if (measured_ && !mutant(Mutant::vote_before_copy)) vote();
}

void ExpertShard::vote() {
  if (capture_ != nullptr) captured_.show(*capture_);
  Vote vote;
  vote.step = owner_.version();
  vote.attempt = attempt_;
  vote.squares = owner_.squares();
  owner_.set_voted();
  context_.post(kConductor, std::move(vote));
}

void ExpertShard::on(const Decision& decision, const Address&) {
  if (decision.attempt != attempt_ || decision.step != owner_.version() || decision_) return;
  decision_ = decision;
  owner_.decided(decision);
  if (snapshots_left_ == 0) apply_decision();
}

void ExpertShard::apply_decision() { run_all(owner_.apply(*decision_), &ExpertShard::encode); }

void ExpertShard::encode() { run_all(owner_.encode(false), &ExpertShard::applied); }

void ExpertShard::applied() {
  const Decision decision = *decision_;
  owner_.committed(decision);
  decision_.reset();
  turns_.clear();
  layers_done_ = 0;
  measured_ = held_ = false;
  read_back_.begin(attempt_, pack(static_cast<int>(Phase::read_back), attempt_, 0), false);
  if (decision.checkpoint) begin_snapshot();
  std::vector<std::pair<ExpertBatch, Address>> early;
  early.swap(early_);
  for (const auto& [batch, from] : early) on(batch, from);
}

void ExpertShard::begin_snapshot() {
  std::vector<Ops> work = owner_.begin_snapshot(attempt_);
  snapshots_left_ = static_cast<int>(work.size());
  for (Ops& ops : work)
    restoring_.submit({SegmentClass::apply, owner_.version(), 0, 0, true}, std::move(ops),
                      pack(static_cast<int>(Phase::snapshot), attempt_, 0));
  send_snapshot();  // none of it may have to be copied
}

void ExpertShard::send_snapshot() {
  auto& parts = owner_.snapshot_parts();
  while (snapshots_left_ == 0 && snapshot_credits_ > 0 && !parts.empty()) {
    context_.post(kCheckpointer, std::move(parts.front()));
    parts.pop_front();
    --snapshot_credits_;
  }
}

}  // namespace troupe
