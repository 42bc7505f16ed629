// Arrivals, slots, and the way of a completion to its phase. See stage.h for the whole.
#include "actors/stage.h"

#include <algorithm>
#include <cstring>

#include "actors/rules/recovery.h"
#include "kernels/base/mutant.h"
#include "kernels/model/rope_table.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr Address kLoader{Role::loader, 0};

template <typename Map>
void copy_i32(const Payload& from, const Map& to, std::int64_t count) {
  std::memcpy(to.data, from.data.get(), static_cast<std::size_t>(count) * 4);
}

}  // namespace

Stage::Stage(const Context& context, const Config& config, int replica, int stage, Capture* capture)
    : context_(context),
      config_(config),
      replica_(replica),
      shape_(stage_shapes(config)[static_cast<std::size_t>(stage)]),
      capture_(capture),
      uses_(shared_uses(config, shape_)),
      owner_(context, config, stage_parameters(config, shape_), config.train.gradient_lanes / config.layout.replicas,
             config.layout.replicas, shared_elements(uses_)),
      restoring_(context, config, owner_, [this](const Restore& r, const std::string& problem) { enter(r, problem); }),
      read_back_(context, owner_, restoring_),
      twin_sums_(config, replica, owner_.lane(0).cols) {
  const auto all_shadows = shadows(config);
  if (const auto own = all_shadows.find(context.self()); own != all_shadows.end()) shadow_ = own->second;
  const SlotBytes bytes = slot_bytes(config, shape_);
  const auto slots = static_cast<std::size_t>(config.slots()) + static_cast<std::size_t>(config.generate_slots());
  slot_memory_ = context_.allocate(bytes.device * slots, Place::device);
  slot_shared_ = context_.allocate(bytes.shared * slots, Place::shared);
  for (std::size_t i = 0; i < slots; ++i) {
    Carver carver(static_cast<char*>(slot_memory_.data) + bytes.device * i,
                  static_cast<char*>(slot_shared_.data) + bytes.shared * i);
    slots_.push_back(carve_slot(carver, config, shape_));
  }
  works_.resize(slots_.size());
  bring_rope_tables();
  if (reads_embedding_copy(config, shape_)) {
    const std::size_t elements =
        static_cast<std::size_t>(config.model.vocab_size) * static_cast<std::size_t>(config.model.hidden_size);
    copy_memory_ = context_.allocate(elements * 4, Place::device);
    if (activation_type(config) == Dtype::bf16) copy16_memory_ = context_.allocate(elements * 2, Place::device);
  }
  if (config.has_rollouts() && (copy_memory_.data != nullptr || sends_copy()))
    copy_digest_ = context_.allocate(16, Place::shared);
  bind_tensors();
  find_trained();
}

// Every row of every layer reads them, so they are the device's.
void Stage::bring_rope_tables() {
  const RopeTable table =
      make_rope_table(config_.model, std::max(config_.train.sequence_length, config_.generate_length()));
  const std::size_t elements = table.cosine.size();
  rope_memory_ = context_.allocate(elements * 8, Place::device);
  auto* const cosine = static_cast<float*>(rope_memory_.data);
  cosine_ = {cosine, table.positions, table.half, table.half, Dtype::f32};
  sine_ = {cosine + elements, table.positions, table.half, table.half, Dtype::f32};
  restoring_.bring(to_payload(context_.pool(), table.cosine), cosine_);
  restoring_.bring(to_payload(context_.pool(), table.sine), sine_);
}

void Stage::find_trained() {
  trains_.assign(static_cast<std::size_t>(embedding_unit()) + 1, 0);
  const auto train = [&](int unit) { trains_[static_cast<std::size_t>(unit)] = 1; };
  for (const Parameter& p : owner_.trained().parameters()) {
    if (p.kind == ParameterKind::router_bias) continue;
    if (p.layer >= 0)
      train(p.layer == config_.model.num_hidden_layers ? shape_.layers : p.layer - shape_.first_layer);
    else
      train(p.name == "model.embed_tokens.weight" ? embedding_unit() : head_unit());
  }
  for (const SharedUse& use : uses_) train(use.use == 1 ? head_unit() : shape_.layers);
}

void Stage::bind_tensors() {
  const ModelConfig& m = config_.model;
  const auto matrices = [&](const std::string& a, const std::string& b) { return owner_.matrices(a, b); };
  const auto masters = [&](const std::string& a, const std::string& b) { return owner_.masters(a, b); };
  const int units = shape_.layers + (shape_.last && m.has_mtp() ? 1 : 0);
  accumulators_.resize(static_cast<std::size_t>(config_.train.gradient_lanes / config_.layout.replicas));
  for (int u = 0; u < units; ++u) {
    weights_.push_back(bind_layer(m, layer_of(u), matrices, masters));
    if (config_.has_reference()) reference_.push_back(bind_reference(u));
    for (std::size_t lane = 0; lane < accumulators_.size(); ++lane) {
      const auto sums = [&](const std::string& a, const std::string& b) {
        return owner_.accumulators(static_cast<int>(lane), a, b);
      };
      accumulators_[lane].push_back(bind_layer(m, layer_of(u), sums, sums));
    }
  }
  if (!shape_.last) return;
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  const std::int64_t v = m.vocab_size, d = m.hidden_size;
  Tensor table = owner_.masters(embedding, embedding), table_product = owner_.matrices(embedding, embedding);
  if (copy_memory_.data != nullptr) {
    table = table_product = {copy_memory_.data, v, d, d, Dtype::f32};
    if (copy16_memory_.data != nullptr) table_product = {copy16_memory_.data, v, d, d, Dtype::bf16};
  }
  head_ = {masters("model.norm.weight", "model.norm.weight"),
           m.tie_word_embeddings ? table_product : matrices(head, head)};
  if (config_.has_reference())
    reference_head_ = {
        owner_.reference_masters("model.norm.weight", "model.norm.weight"),
        owner_.reference_matrices(m.tie_word_embeddings ? embedding : head, m.tie_word_embeddings ? embedding : head)};
  if (!m.has_mtp()) return;
  const std::string p = fmt::format("model.layers.{}.", m.num_hidden_layers);
  mtp_ = {masters(p + "enorm.weight", p + "enorm.weight"), masters(p + "hnorm.weight", p + "hnorm.weight"),
          matrices(p + "eh_proj.weight", p + "eh_proj.weight"),
          masters(p + "shared_head.norm.weight", p + "shared_head.norm.weight"), table};
  mtp_head_ = {mtp_.head_norm, head_.head};
}

LayerTensors Stage::bind_reference(int unit) const {
  const auto matrices = [&](const std::string& a, const std::string& b) { return owner_.reference_matrices(a, b); };
  const auto masters = [&](const std::string& a, const std::string& b) { return owner_.reference_masters(a, b); };
  return bind_layer(config_.model, layer_of(unit), matrices, masters);
}

std::uint64_t Stage::pack(const Token& t) {
  return static_cast<std::uint64_t>(t.phase) | static_cast<std::uint64_t>(t.attempt) << 8 |
         static_cast<std::uint64_t>(t.slot) << 16 | static_cast<std::uint64_t>(t.unit) << 32;
}
Stage::Token Stage::unpack(std::uint64_t word) {
  return {static_cast<Phase>(word & 0xFF), static_cast<std::uint8_t>(word >> 8), static_cast<std::uint16_t>(word >> 16),
          static_cast<std::uint16_t>(word >> 32)};
}

// From here on nothing of an older attempt counts.
void Stage::on(const Restore& restore, const Address&) {
  if (restoring_.begin(restore)) attempt_ = restore.attempt;
}

void Stage::enter(const Restore& restore, const std::string& problem) {
  attempt_ = restore.attempt;
  reset();
  context_.post(kConductor, Restored{restore.version, restore.attempt, problem});
  const Address upstream = shape_.first ? kLoader : stage_address(config_, replica_, shape_.stage - 1);
  grant(upstream, Channel::microbatch, 0, shape_.first ? config_.slots() : static_cast<int>(slots_.size()));
  copy_embedding();
  begin_read_back();
  if (restore.checkpoint) begin_snapshot();
  for (const auto& [credit, from] : std::exchange(early_credits_, {})) on(credit, from);
  if (copied_early_) on(*std::exchange(copied_early_, std::nullopt), {});
}

void Stage::reset() {
  std::fill(works_.begin(), works_.end(), Work{});
  next_sequence_ = next_train_sequence_ = 0;
  early_batches_.clear();
  downstream_.reset();
  forward_.clear();
  backward_.clear();
  twin_sums_.clear();
  shared_in_.clear();
  decision_.reset();
  copy_version_ = -1;
  copying_ = false;
  copy_source_ = {};
  group_.forget();
  snapshot_credits_ = snapshots_left_ = 0;
  begin_step();
}

void Stage::begin_step() {
  released_ = 0;
  folded_ = added_ = reduced_ = measured_ = held_ = false;
  sums_out_.clear();
  part_out_.clear();
  gradient_out_ = {};
  shared_out_.clear();
  counts_.clear();
  if (!mutant(Mutant::counts_kept)) losses_.clear();
  const auto lanes = static_cast<std::size_t>(config_.train.gradient_lanes / config_.layout.replicas);
  unit_lanes_.assign(static_cast<std::size_t>(shape_.layers) + 3, std::vector<UnitLane>(lanes));
  for (auto& unit : unit_lanes_)
    for (std::size_t l = 0; l < lanes; ++l) unit[l].next = replica_ + config_.layout.replicas * static_cast<int>(l);
}

void Stage::on(const Credit& credit, const Address& from) {
  if (restoring_.active() || is_future(credit.attempt, attempt_)) {
    if (!mutant(Mutant::early_credit_dropped)) early_credits_.emplace_back(credit, from);
    return;
  }
  if (stale(credit.attempt)) return;
  if (credit.channel == Channel::snapshot) {
    snapshot_credits_ += credit.count;
    return send_snapshot();
  }
  if (credit.channel == Channel::microbatch) {
    downstream_.grant(credit.count);
    return drain_downstream();
  }
  const Direction direction = credit.channel == Channel::dispatch_forward ? Direction::forward : Direction::backward;
  const int unit = credit.layer == config_.model.num_hidden_layers ? shape_.layers : credit.layer - shape_.first_layer;
  const int shard = static_cast<int>(from.index) % config_.layout.expert_shards;
  sender(direction, mutant(Mutant::credit_without_layer) ? 0 : unit, shard).grant(credit.count);
  drain(direction, unit, shard);
}

int Stage::take_slot(const WorkKey& key, std::int64_t rows, std::int64_t sequences, std::int64_t length) {
  CHECK(rows <= config_.microbatch_rows(), "{} rows in a slot of {}", rows, config_.microbatch_rows());
  for (std::size_t i = 0; i < works_.size(); ++i) {
    if (works_[i].busy) continue;
    Work& work = works_[i] = Work{};
    work.busy = true;
    work.key = key;
    work.sequence = next_sequence_++;
    if (work.train()) work.train_sequence = next_train_sequence_++;
    work.rows = rows;
    work.sequences = sequences;
    work.length = length;
    work.loss.microbatch = key.microbatch;
    work.stashed.resize(static_cast<std::size_t>(shape_.layers) + 1);
    return static_cast<int>(i);
  }
  CHECK(false, "{} came without a credit", to_string(key));
  return -1;
}

int Stage::find_work(const WorkKey& key) const {
  for (std::size_t i = 0; i < works_.size(); ++i) {
    const Work& w = works_[i];
    if (w.busy && w.key.kind == key.kind && w.key.step == key.step && w.key.microbatch == key.microbatch)
      return static_cast<int>(i);
  }
  return -1;
}

void Stage::receive_geometry(Work& work, StageSlot& memory, const Payload& positions, const Payload& spans,
                             std::int32_t spans_count) {
  copy_i32(positions, memory.positions, work.rows);
  copy_i32(spans, memory.spans, static_cast<std::int64_t>(spans_count) * 4);
  work.batch.positions = memory.positions.row_range(0, work.rows);
  work.batch.spans = memory.spans.row_range(0, spans_count);
  work.batch.cosine = cosine_;
  work.batch.sine = sine_;
}

void Stage::receive_ids(Work& work, StageSlot& memory, const TokenBatch& batch) {
  copy_i32(batch.ids, memory.ids, work.rows);
  copy_i32(batch.targets, memory.targets, work.rows);
  work.batch.ids = memory.ids.row_range(0, work.rows);
  work.batch.targets = memory.targets.row_range(0, work.rows);
  work.target_tokens = batch.target_tokens;
  work.mtp_target_tokens = batch.mtp_target_tokens;
  if (shape_.last) receive_policy(work, memory, batch);
  work.has_tokens = true;
  if (shape_.last && config_.model.has_mtp() && work.train()) prepare_mtp(work, memory, batch);
}

void Stage::receive_policy(Work& work, StageSlot& memory, const TokenBatch& batch) {
  work.has_policy = batch.policy.size > 0;
  if (work.has_policy) std::memcpy(memory.policy.data, batch.policy.data.get(), batch.policy.size);
  if (batch.kept.size > 0) std::memcpy(memory.kept.data, batch.kept.data.get(), batch.kept.size);
}

// The MTP layer's rows: each sequence without its last token, embedding the next token and predicting the one after.
void Stage::prepare_mtp(Work& work, StageSlot& memory, const TokenBatch& batch) {
  const MtpSlot view = first_sequences(memory.mtp, work.sequences, work.length);
  const auto* ids = batch.ids.as<std::int32_t>();
  const auto* targets = batch.mtp_targets.as<std::int32_t>();
  const auto* positions = batch.positions.as<std::int32_t>();
  for (std::int64_t b = 0, out = 0; b < work.sequences; ++b) {
    for (std::int64_t t = 0; t + 1 < work.length; ++t, ++out) {
      *view.ids.row<std::int32_t>(out) = ids[b * work.length + t + 1];
      *view.targets.row<std::int32_t>(out) = targets[b * work.length + t];
      *view.positions.row<std::int32_t>(out) = positions[b * work.length + t];
    }
  }
  const auto* spans = batch.spans.as<std::int32_t>();
  std::int32_t kept = 0;
  for (std::int32_t s = 0; s < batch.spans_count; ++s) {
    const std::int64_t begin = spans[4 * s], sequence = begin / work.length;
    const std::int64_t end = std::min<std::int64_t>(begin + spans[4 * s + 1], (sequence + 1) * work.length - 1);
    if (end <= begin) continue;
    const auto first = static_cast<std::int32_t>(begin - sequence), count = static_cast<std::int32_t>(end - begin);
    const std::int32_t span[4] = {first, count, first, count};
    std::memcpy(memory.mtp_spans.row<std::int32_t>(kept++), span, sizeof span);
  }
  work.mtp_batch = work.batch;
  work.mtp_batch.ids = view.ids;
  work.mtp_batch.targets = view.targets;
  work.mtp_batch.positions = view.positions;
  work.mtp_batch.spans = memory.mtp_spans.row_range(0, kept);
  work.mtp_batch.cosine = cosine_;
  work.mtp_batch.sine = sine_;
}

void Stage::on(const TokenBatch& batch, const Address&) {
  if (stale(batch.key.attempt)) return;
  const std::int64_t rows = static_cast<std::int64_t>(batch.sequences) * batch.length;
  if (!shape_.first) {
    const int slot = find_work(batch.key);
    if (slot < 0) {
      early_batches_[{batch.key.step * kWorkKinds + static_cast<int>(batch.key.kind), batch.key.microbatch}] = batch;
      return;
    }
    receive_ids(works_[static_cast<std::size_t>(slot)], slots_[static_cast<std::size_t>(slot)], batch);
    return try_start(slot);
  }
  const int slot = take_slot(batch.key, rows, batch.sequences, batch.length);
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  receive_geometry(work, memory, batch.positions, batch.spans, batch.spans_count);
  receive_ids(work, memory, batch);
  try_start(slot);
}

void Stage::on(const Activations& a, const Address&) {
  if (stale(a.key.attempt)) return;
  const int slot = take_slot(a.key, a.rows, a.sequences, a.length);
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  work.hidden_in = a.hidden;
  receive_geometry(work, memory, a.positions, a.spans, a.spans_count);
  const auto early = early_batches_.find({a.key.step * kWorkKinds + static_cast<int>(a.key.kind), a.key.microbatch});
  if (early != early_batches_.end()) {
    receive_ids(work, memory, early->second);
    early_batches_.erase(early);
  }
  try_start(slot);
}

// Work of version n starts when this owner is at n and, on a last stage, the tokens and the embedding's copy are here.
void Stage::try_start(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (!work.busy || work.started || work.key.step != owner_.version()) return;
  if (shape_.last && !work.has_tokens && !work.generate) return;
  if (copy_memory_.data != nullptr && copy_version_ != work.key.step) return;
  work.started = true;
  work.units_left = 1 + static_cast<int>(std::count(trains_.begin(), trains_.end(), 1));
  begin_forward(slot);
}

void Stage::release(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const bool from_rollout = work.generate.has_value() && shape_.first;
  if (work.train()) {
    losses_.push_back(work.loss);  // of a stage before the last: the balance of its layers
    ++released_;
  }
  const bool train = work.train();
  work = Work{};
  const Address upstream = shape_.first ? kLoader : stage_address(config_, replica_, shape_.stage - 1);
  if (!from_rollout && !mutant(Mutant::microbatch_credit_kept)) grant(upstream, Channel::microbatch, 0, 1);
  if (train && released_ == config_.train.microbatches / config_.layout.replicas) fold();
}

void Stage::grant(const Address& to, Channel channel, int layer, int count) {
  context_.post(to, Credit{channel, layer, count, attempt_});
}

void Stage::submit(SegmentClass segment_class, int slot, int unit, Phase phase, Ops ops, const SegmentWay& way) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  ++work.segments;
  const SegmentClass actual = work.train() ? segment_class : SegmentClass::evaluate;
  const std::int32_t m = work.key.microbatch;
  const std::int32_t lead = segment_class == SegmentClass::weight_gradient ? weights_lead(config_, shape_.stage, m)
                                                                           : forward_lead(config_, shape_.stage);
  const Use side = side_of(config_, work.key.kind);
  restoring_.submit({actual, work.key.step, m, layer_of(unit), false, lead, false, side}, std::move(ops),
                    pack({phase, static_cast<std::uint8_t>(attempt_), static_cast<std::uint16_t>(slot),
                          static_cast<std::uint16_t>(unit)}),
                    {way.strand, way.early && capture_ == nullptr});
}

void Stage::on(const SegmentDone& done, const Address&) {
  if (restoring_.takes(done)) return;
  const Token token = unpack(done.token);
  const int slot = token.slot, unit = token.unit;
  if (token.phase <= Phase::weights) {
    Work& work = works_[static_cast<std::size_t>(slot)];
    --work.segments;
    if (capture_ != nullptr) work.captured.show(*capture_);
  }
  switch (token.phase) {
    case Phase::attention:
      return attention_done(slot);
    case Phase::mlp:
      works_[static_cast<std::size_t>(slot)].mlp_done = true;
      return forward_results(slot);
    case Phase::head:
      return head_done(slot, unit);
    case Phase::gather:
      return gather_done(slot);
    case Phase::mlp_backward:
      works_[static_cast<std::size_t>(slot)].mlp_done = true;
      return backward_results(slot);
    case Phase::layer_backward:
      return layer_backward_done(slot, unit);
    case Phase::weights:
      return weights_done(slot, unit);
    case Phase::copy_out:
      return send_embedding_copy();
    case Phase::copy_in:
      copy_version_ = owner_.version();
      copying_ = false;
      copy_source_ = {};
      if (config_.has_rollouts()) read_back_.copied(copy_problem());
      if (mutant(Mutant::lost_wakeup)) return;
      for (std::size_t i = 0; i < works_.size(); ++i) try_start(static_cast<int>(i));
      return;
    case Phase::snapshot:
      if (--snapshots_left_ == 0) {
        send_snapshot();
        if (decision_) apply_decision(*decision_);
      }
      return;
    case Phase::read_back:
      return read_back_.segment_done();
    case Phase::group:
      return group_.segment_done();
  }
}

LayerSlot Stage::layer_view(int slot, int unit) const {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  const StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  if (is_mtp(unit)) return first_rows(memory.mtp_layer, work.rows - work.sequences, work.sequences);
  return first_rows(memory.layers[static_cast<std::size_t>(unit)], work.rows,
                    std::max<std::int64_t>(work.sequences, 1));
}

SlotScratch Stage::scratch_view(int slot, int unit) const {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  return first_rows(slots_[static_cast<std::size_t>(slot)].scratch,
                    is_mtp(unit) ? work.rows - work.sequences : work.rows);
}

const BatchTensors& Stage::batch_of(int slot, int unit) const {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  return is_mtp(unit) ? work.mtp_batch : work.batch;
}

}  // namespace troupe
