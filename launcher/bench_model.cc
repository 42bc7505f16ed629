#include "launcher/bench_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "actors/expert_shard.h"
#include "actors/owner.h"
#include "kernels/base/random.h"
#include "kernels/model/rope_table.h"

namespace troupe {

namespace {

// Memory for what `carve` lays out: measured first.
template <typename Carve>
BenchMemory carve_on(Device& device, Carve carve) {
  Carver measure;
  carve(measure);
  BenchMemory memory{device.allocate(measure.used(), Place::device),
                     device.allocate(measure.shared_used(), Place::shared)};
  Carver carver(memory.device.data, memory.shared.data);
  carve(carver);
  return memory;
}

Config one_layer_of_each(const Config& whole) {
  Config config = whole;
  ModelConfig& m = config.model;
  const bool dense = !whole.model.is_moe_layer(0), moe = whole.model.is_moe_layer(whole.model.num_hidden_layers - 1);
  m.first_k_dense_replace = dense ? 1 : 0;
  m.num_hidden_layers = (dense ? 1 : 0) + (moe ? 1 : 0);
  m.num_nextn_predict_layers = 0;
  config.layout = {};
  config.layout.chunk_rows_max = whole.layout.chunk_rows_max;
  config.train.recompute = false;
  return config;
}

// What one optimizer step of so many elements does, is done for all of the model's by so many of them.
double share_of(const Config& whole, const ParameterBlock& part, bool experts) {
  double all = 0, own = 0;
  for (const Parameter& p : model_parameters(whole.model))
    if ((p.kind == ParameterKind::expert) == experts) all += static_cast<double>(p.elements());
  for (const Parameter& p : part.parameters()) own += static_cast<double>(p.elements());
  return all / own;
}

// Rows of each expert when every row's is drawn.
Counts drawn_counts(const Config& config, std::int64_t rows) {
  const auto experts = static_cast<std::uint64_t>(config.model.n_routed_experts);
  Counts counts(experts, 0);
  const std::uint64_t key = random_key(config.train.seed, "bench/routing");
  for (std::int64_t row = 0; row < rows; ++row) ++counts[random_below(experts, key, static_cast<std::uint64_t>(row))];
  return counts;
}

}  // namespace

BenchModel::BenchModel(Device& device, const Config& config, std::size_t apart)
    : whole_(config), config_(one_layer_of_each(config)), shape_(stage_shapes(config_)[0]), device_(device) {
  const ModelConfig& m = config_.model;
  routed_rows_ = m.is_mla() ? std::int64_t{config_.microbatch_rows()} * m.num_experts_per_tok : 0;
  chunk_rows_ = std::min<std::int64_t>(routed_rows_, config_.layout.chunk_rows_max);
  keeps_rows_ = routed_rows_ > 0 && shard_pool(config_, shape_).keeps_rows;
  dense_ = std::make_unique<BenchWeights>(device, config_, stage_parameters(config_, shape_));
  for (int layer = 0; layer < m.num_hidden_layers; ++layer) {
    weights_.push_back(bind_layer(
        m, layer, [&](const auto& first, const auto& last) { return dense_->matrices(first, last); },
        [&](const auto& first, const auto& last) { return dense_->masters(first, last); }));
    const auto sums = [&](const auto& first, const auto& last) { return dense_->accumulators(first, last); };
    accumulators_.push_back(bind_layer(m, layer, sums, sums));
  }
  if (has_expert_shards(config_, shape_)) {
    experts_ = std::make_unique<BenchWeights>(device, config_, shard_parameters(config_, shape_, 0));
    for (int e = 0; e < m.n_routed_experts; ++e) {
      const std::string p = fmt::format("model.layers.{}.mlp.experts.{}.", m.num_hidden_layers - 1, e);
      const std::string gate = p + "gate_proj.weight", up = p + "up_proj.weight", down = p + "down_proj.weight";
      expert_weights_.push_back({experts_->matrices(gate, up), experts_->matrices(down, down)});
      expert_accumulators_.push_back({experts_->accumulators(gate, up), experts_->accumulators(down, down)});
    }
    counts_ = drawn_counts(config_, chunk_rows_);
  }
  if (m.tie_word_embeddings)
    tied_sums_ =
        device.allocate(static_cast<std::size_t>(shared_elements(shared_uses(config_, shape_))) * 4, Place::device);
  const RopeTable table = make_rope_table(m, config_.train.sequence_length);
  const auto values = static_cast<std::int64_t>(table.cosine.size());
  const auto flat = [&](const Memory& memory) { return Tensor{memory.data, 2, values, values, Dtype::f32}; };
  rope_ = device.allocate(table.cosine.size() * 8, Place::device);
  rope_source_ = device.allocate(table.cosine.size() * 8, Place::shared);
  rope_table_ = flat(rope_), rope_source_table_ = flat(rope_source_);
  std::copy(table.cosine.begin(), table.cosine.end(), rope_source_table_.row<float>(0));
  std::copy(table.sine.begin(), table.sine.end(), rope_source_table_.row<float>(1));
  cosine_ = {rope_table_.row<float>(0), table.positions, table.half, table.half, Dtype::f32};
  sine_ = {rope_table_.row<float>(1), table.positions, table.half, table.half, Dtype::f32};

  constexpr std::size_t kMost = 64;
  std::size_t size = 0;
  do {
    Microbatch& at = microbatches_.emplace_back();
    carve(at);
    write_batch(at, microbatches_.size());
    add_forward(at);
    add_backward(at);
    add_optimizer(at);
    size += at.memory.device.size;
  } while (size <= apart && microbatches_.size() < kMost);
}

void BenchModel::carve(Microbatch& at) {
  const Dtype act = activation_type(config_);
  at.memory = carve_on(device_, [&](Carver& carver) {
    at.slot = carve_slot(carver, config_, shape_);
    if (!experts_) return;
    at.chunk = carve_chunk(carver, config_.model, chunk_rows_, act, config_.is_fp8(), keeps_rows_);
    at.gathered = carver.tensor(routed_rows_, config_.model.hidden_size, act);
    if (keeps_rows_) {
      at.chunk.x = carver.tensor(routed_rows_, config_.model.hidden_size, act);
      at.chunk.dy = at.gathered;
    }
    at.results = carver.tensor(routed_rows_, config_.model.hidden_size, act);
    at.gates = carver.tensor(routed_rows_, 1, Dtype::f32);
    at.dots = carver.tensor(routed_rows_, 1, Dtype::f32);
  });
}

void BenchModel::write_batch(Microbatch& at, std::uint64_t number) const {
  const std::int32_t length = config_.train.sequence_length, sequences = config_.microbatch_sequences();
  const auto vocabulary = static_cast<std::uint64_t>(config_.model.vocab_size);
  const std::uint64_t key = random_key(config_.train.seed, "bench/tokens");
  const auto token = [&](std::uint64_t row) {
    return static_cast<std::int32_t>(random_below(vocabulary, key, number, row));
  };
  for (std::int32_t row = 0; row < sequences * length; ++row) {
    *at.slot.ids.row<std::int32_t>(row) = token(static_cast<std::uint64_t>(row));
    const bool last = row % length == length - 1;
    *at.slot.targets.row<std::int32_t>(row) = last ? -1 : token(static_cast<std::uint64_t>(row) + 1);
    *at.slot.positions.row<std::int32_t>(row) = row % length;
  }
  for (std::int32_t s = 0; s < sequences; ++s) {
    const std::int32_t span[4] = {s * length, length, s * length, length};
    std::copy_n(span, 4, at.slot.spans.row<std::int32_t>(s));
  }
  const BatchTensors& near = at.slot.near;
  at.batch = {near.ids, near.targets, near.positions, near.spans.row_range(0, sequences), cosine_, sine_};
}

std::vector<Ops> BenchModel::values() const {
  std::vector<Ops> work;
  dense_->draw(work.emplace_back());
  if (experts_) experts_->draw(work.emplace_back());
  work.push_back({Copy{rope_source_table_, rope_table_}});
  const std::uint64_t key = random_key(config_.train.seed, "bench/rows");
  for (const Microbatch& at : microbatches_)
    for (const Tensor& t : {at.gathered, at.results, at.gates, at.dots})
      if (t) work.push_back({Initialize{t, key, 0, 0.1F}});
  return work;
}

double BenchModel::loss(std::size_t microbatch) const {
  const Tensor& loss = microbatches_[microbatch].slot.head.loss;
  double sum = 0;
  for (std::int64_t row = 0; row < loss.rows; ++row) sum += static_cast<double>(*loss.row<float>(row));
  const int length = config_.train.sequence_length;
  return sum / (static_cast<double>(loss.rows) * (length - 1) / length);
}

void BenchModel::add(Microbatch& at, const std::string& name, SegmentClass phase, double times, Ops ops) const {
  at.parts.push_back({name, phase, times, std::move(ops)});
}

std::string BenchModel::name_of(int layer) const {
  return config_.model.is_moe_layer(layer) ? "moe layer" : "dense layer";
}

double BenchModel::times_of(int layer) const {
  int count = 0;
  for (int l = 0; l < whole_.model.num_hidden_layers; ++l)
    count += whole_.model.is_moe_layer(l) == config_.model.is_moe_layer(layer) ? 1 : 0;
  return static_cast<double>(count) * whole_.train.microbatches;
}

// The head's gradient, where its weights are the embedding's.
Tensor BenchModel::tied_sums() const {
  const std::int64_t d = config_.model.hidden_size;
  return {tied_sums_.data, config_.model.vocab_size, d, d, Dtype::f32};
}

Tensor BenchModel::input_of(const Microbatch& at, int layer) const {
  return layer < config_.model.num_hidden_layers ? at.slot.layers[static_cast<std::size_t>(layer)].x : at.slot.head.x;
}

Tensor BenchModel::gradient_of(const Microbatch& at, int layer) const {
  return layer >= 0 ? at.slot.layers[static_cast<std::size_t>(layer)].g : at.slot.input_gradient;
}

void BenchModel::add_forward(Microbatch& at) const {
  const ModelConfig& m = config_.model;
  const std::string table = "model.embed_tokens.weight";
  add(at, "embedding", SegmentClass::forward, whole_.train.microbatches,
      {Copy{at.slot.ids, at.batch.ids}, Copy{at.slot.targets, at.batch.targets},
       Copy{at.slot.positions, at.batch.positions},
       Copy{at.slot.spans.row_range(0, at.batch.spans.rows), at.batch.spans},
       Embedding{at.batch.ids, dense_->masters(table, table), input_of(at, 0)}});
  for (int layer = 0; layer < m.num_hidden_layers; ++layer) {
    const LayerSlot& slot = at.slot.layers[static_cast<std::size_t>(layer)];
    const LayerTensors& w = weights_[static_cast<std::size_t>(layer)];
    Ops ops;
    attention_forward(ops, m, layer, w, slot, at.batch);
    if (m.is_moe_layer(layer))
      ops.push_back(Gather{slot.z2, slot.sorted_token, keeps_rows_ ? at.chunk.x : at.gathered});
    if (slot.mlp_out) mlp_forward(ops, w, slot);
    RecycledVector<Tensor> pieces;
    for (std::int64_t row = 0; m.is_moe_layer(layer) && row < routed_rows_; row += chunk_rows_)
      pieces.push_back(at.results.row_range(row, std::min(chunk_rows_, routed_rows_ - row)));
    combine_forward(ops, slot, pieces, input_of(at, layer + 1));
    add(at, name_of(layer), SegmentClass::forward, times_of(layer), std::move(ops));
    if (m.is_moe_layer(layer)) add_expert_forward(at);
  }
  Ops ops;
  const std::string head = m.tie_word_embeddings ? table : "lm_head.weight";
  const HeadTensors w{dense_->masters("model.norm.weight", "model.norm.weight"), dense_->matrices(head, head)};
  const double tokens = static_cast<double>(config_.train.batch_sequences) * (config_.train.sequence_length - 1);
  head_forward(ops, m, w, at.slot.head);
  head_loss(ops, w, at.slot.head, at.batch.targets, static_cast<float>(1 / tokens), true);
  head_backward(ops, m, w, at.slot.head, gradient_of(at, m.num_hidden_layers - 1));
  begin_backward(ops, at.slot.layers.back());
  add(at, "head", SegmentClass::backward, whole_.train.microbatches, std::move(ops));
}

void BenchModel::add_backward(Microbatch& at) const {
  const ModelConfig& m = config_.model;
  const auto sums = [&](const std::string& name) { return dense_->accumulators(name, name); };
  for (int layer = m.num_hidden_layers - 1; layer >= 0; --layer) {
    const LayerSlot& slot = at.slot.layers[static_cast<std::size_t>(layer)];
    const LayerTensors& w = weights_[static_cast<std::size_t>(layer)];
    const bool routed = m.is_moe_layer(layer);
    Ops ops;
    if (routed) {
      ops.push_back(Gather{slot.g_act, slot.sorted_token, at.gathered});
      ops.push_back(Copy{slot.sorted_weight, at.gates});
    }
    if (slot.mlp_out) mlp_backward(ops, w, slot, at.slot.scratch);
    if (routed) {
      RoutedGradients answers;
      answers.near = config_.layout.nodes == 1;
      for (std::int64_t row = 0; row < routed_rows_; row += chunk_rows_) {
        answers.pieces.push_back(at.results.row_range(row, std::min(chunk_rows_, routed_rows_ - row)));
        answers.dots.push_back(at.dots.row_range(row, std::min(chunk_rows_, routed_rows_ - row)));
      }
      answers.balance_scale =
          static_cast<float>(config_.balance_alpha() /
                             (static_cast<double>(config_.train.sequence_length) * config_.train.batch_sequences));
      routed_backward(ops, m, w, slot, at.slot.scratch, answers);
    }
    attention_backward(ops, m, w, slot, at.slot.scratch, at.batch, gradient_of(at, layer - 1));
    if (layer > 0) begin_backward(ops, at.slot.layers[static_cast<std::size_t>(layer) - 1]);
    add(at, name_of(layer), SegmentClass::backward, times_of(layer), std::move(ops));
    if (routed) add_expert_backward(at);
    Ops own;
    weight_gradients(own, slot, accumulators_[static_cast<std::size_t>(layer)]);
    add(at, name_of(layer), SegmentClass::weight_gradient, times_of(layer), std::move(own));
  }
  const Tensor head = m.tie_word_embeddings ? tied_sums() : sums("lm_head.weight");
  Ops ops;
  head_weight_gradients(ops, at.slot.head, sums("model.norm.weight"), head);
  add(at, "head", SegmentClass::weight_gradient, whole_.train.microbatches, std::move(ops));
  add(at, "embedding", SegmentClass::weight_gradient, whole_.train.microbatches,
      {EmbeddingGradient{at.batch.ids, at.slot.input_gradient, sums("model.embed_tokens.weight")}});
}

void BenchModel::add_expert_forward(Microbatch& at) const {
  const int layer = config_.model.num_hidden_layers - 1;
  Ops ops;
  if (!keeps_rows_) ops.push_back(Copy{at.gathered.row_range(0, chunk_rows_), at.chunk.x});
  expert_forward(ops, expert_weights_, counts_, at.chunk, at.results.row_range(0, chunk_rows_));
  const double chunks = static_cast<double>(routed_rows_) / static_cast<double>(chunk_rows_);
  add(at, "experts", SegmentClass::forward, times_of(layer) * chunks, std::move(ops));
}

void BenchModel::add_expert_backward(Microbatch& at) const {
  const double chunks = static_cast<double>(routed_rows_) / static_cast<double>(chunk_rows_);
  const double times = times_of(config_.model.num_hidden_layers - 1) * chunks;
  const auto first = [&](const Tensor& t) { return t.row_range(0, chunk_rows_); };
  Ops ops;
  expert_backward(ops, expert_weights_, counts_, at.chunk, false, first(at.gathered), first(at.gates),
                  first(at.results), first(at.dots));
  add(at, "experts", SegmentClass::backward, times, std::move(ops));
  Ops own;
  expert_weight_gradients(own, counts_, at.chunk, expert_accumulators_, 0, expert_accumulators_.size());
  add(at, "experts", SegmentClass::weight_gradient, times, std::move(own));
}

void BenchModel::add_optimizer(Microbatch& at) const {
  Ops ops;
  if (config_.model.tie_word_embeddings) {
    const Tensor sums = dense_->accumulators("model.embed_tokens.weight", "model.embed_tokens.weight");
    ops.push_back(Add{sums, tied_sums(), sums});
    ops.push_back(Fill{tied_sums(), 0});
  }
  dense_->learn(ops);
  add(at, "optimizer", SegmentClass::apply, share_of(whole_, dense_->block(), false), std::move(ops));
  if (!experts_) return;
  Ops own;
  experts_->learn(own);
  add(at, "optimizer, experts", SegmentClass::apply, share_of(whole_, experts_->block(), true), std::move(own));
}

}  // namespace troupe
