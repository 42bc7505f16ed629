// The forward way of a microbatch through a stage, and what the last stage makes of its end.
#include <bit>
#include <cmath>
#include <cstring>

#include "actors/stage.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr std::uint32_t kForwardStrands = 1U << 30;  // behind those of weight gradients; one a slot

}  // namespace

// On a GPU ops reach what messages brought over the bus: those of all layers read a copy.
void Stage::bring_batch(Ops& ops, int slot) {
  BatchTensors& batch = works_[static_cast<std::size_t>(slot)].batch;
  const BatchTensors& near = slots_[static_cast<std::size_t>(slot)].near;
  const auto bring = [&](Tensor& tensor, const Tensor& to) {
    if (!tensor || !to || tensor.data == to.data) return;
    const Tensor copy = to.row_range(0, tensor.rows);
    ops.push_back(Copy{tensor, copy});
    tensor = copy;
  };
  bring(batch.ids, near.ids);
  bring(batch.targets, near.targets);
  bring(batch.positions, near.positions);
  bring(batch.spans, near.spans);
}

void Stage::begin_forward(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const Tensor x = layer_view(slot, 0).x;
  Ops ops;
  if (!work.generate) bring_batch(ops, slot);
  if (shape_.first) {
    ops.push_back(Embedding{work.batch.ids, masters_of(work, "model.embed_tokens.weight"), x});
  } else {
    ops.push_back(Copy{tensor_of(work.hidden_in, x.rows, x.cols), x});
  }
  forward_unit(slot, 0, std::move(ops));
}

// Where a unit's output goes: the next unit's input, the head's, or a payload for the next stage.
Tensor Stage::next_input(int slot, int unit) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  if (is_mtp(unit)) return memory.mtp_head.x.row_range(0, work.rows - work.sequences);
  if (unit < last_unit()) return layer_view(slot, unit + 1).x;
  if (shape_.last) return memory.head.x.row_range(0, work.rows);
  const std::int64_t d = config_.model.hidden_size;
  work.hidden_out = context_.pool_to(stage_address(config_, replica_, shape_.stage + 1))
                        .take(static_cast<std::size_t>(work.rows * d) * 4);
  return tensor_of(work.hidden_out, work.rows, d);
}

LayerCache Stage::cache_of(int slot, int unit) {
  if (!works_[static_cast<std::size_t>(slot)].generate) return {};
  if (caches_.empty()) {
    cache_memory_ = context_.allocate(cache_bytes(config_, shape_), Place::device);
    Carver carver(cache_memory_.data);
    caches_ = carve_caches(carver, config_, shape_,
                           static_cast<std::int64_t>(config_.generate.sequences_max) * config_.generate_length());
  }
  LayerCache cache = caches_[static_cast<std::size_t>(unit)];
  cache.rows =
      slots_[static_cast<std::size_t>(slot)].cache_rows.row_range(0, works_[static_cast<std::size_t>(slot)].rows);
  return cache;
}

void Stage::forward_unit(int slot, int unit, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  work.unit = unit;
  const LayerSlot view = layer_view(slot, unit);
  const LayerTensors& w = weights_of(work, unit);
  const LayerCache cache = cache_of(slot, unit);
  if (work.generate) fork_ops(ops, *work.generate, cache);
  attention_forward(ops, config_.model, layer_of(unit), w, view, batch_of(slot, unit), cache);
  capture_unit(ops, slot, unit);
  if (routed(unit)) {
    const Dtype wire = activation_type(config_);
    const std::int64_t rows = view.sorted_token.rows, d = config_.model.hidden_size;
    work.gathered = shards_pool().take(static_cast<std::size_t>(rows * d) * bytes_of(wire));
    ops.push_back(Gather{view.z2, view.sorted_token, tensor_of(work.gathered, rows, d, wire)});
    return submit_routed(slot, unit, std::move(ops));
  }
  mlp_forward(ops, w, view);
  combine_forward(ops, view, {}, next_input(slot, unit));
  submit(SegmentClass::forward, slot, unit, Phase::attention, std::move(ops), {.early = unit < last_unit()});
}

// The shared experts follow at once: they compute while the counts of the others' rows cross to the host.
void Stage::submit_routed(int slot, int unit, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const LayerSlot view = layer_view(slot, unit);
  const std::uint32_t strand = kForwardStrands + static_cast<std::uint32_t>(slot);
  work.dispatched = false;
  work.mlp_done = !view.mlp_out;
  submit(SegmentClass::forward, slot, unit, Phase::attention, std::move(ops), {.strand = strand});
  if (work.mlp_done) return;
  Ops shared;
  mlp_forward(shared, weights_of(work, unit), view);
  submit(SegmentClass::forward, slot, unit, Phase::mlp, std::move(shared), {.strand = strand, .early = true});
}

// A sequence begins as another one did: its cached rows are copied.
void Stage::fork_ops(Ops& ops, const GenerateBatch& batch, const LayerCache& cache) const {
  const auto* fork = batch.forks.as<std::int32_t>();
  for (std::int32_t i = 0; i < batch.forks_count; ++i, fork += 3)
    for (const Tensor& cached : {cache.kv, cache.k_rope})
      if (cached) ops.push_back(Copy{cached.row_range(fork[0], fork[2]), cached.row_range(fork[1], fork[2])});
}

void Stage::attention_done(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const int unit = work.unit;
  if (!routed(unit)) {
    if (unit < last_unit()) return forward_unit(slot, unit + 1, {});
    return leave_forward(slot, {});
  }
  const LayerSlot view = layer_view(slot, unit);
  count_experts(work, view, layer_of(unit));
  dispatch(slot, Direction::forward);
  forward_results(slot);
}

void Stage::count_experts(Work& work, const LayerSlot& view, int layer) {
  const auto* counts = view.counts.row<std::int32_t>(0);
  if (work.train()) {
    auto& sum = counts_[layer];
    sum.resize(static_cast<std::size_t>(view.counts.cols));
    for (std::size_t e = 0; e < sum.size(); ++e) sum[e] += counts[e];
    for (std::int64_t b = 0; b < view.balance.cols && view.balance; ++b)
      work.loss.balance_sum += static_cast<double>(view.balance.row<float>(0)[b]);
  } else if (work.key.kind == WorkKind::evaluate) {
    work.evaluated.push_back({layer, std::vector<std::int64_t>(counts, counts + view.counts.cols)});
  }
}

void Stage::on(const ExpertResult& result, const Address& from) {
  if (stale(result.key.attempt)) return;
  const int slot = find_work(result.key);
  if (slot < 0) return;  // a late duplicate
  Work& work = works_[static_cast<std::size_t>(slot)];
  const int shard = static_cast<int>(from.index) % config_.layout.expert_shards;
  const bool backward = result.key.direction == Direction::backward;
  if (layer_of(work.unit) != result.key.layer || backward != work.backward) return;
  for (std::size_t i = 0; i < work.pieces.size(); ++i) {
    Piece& piece = work.pieces[i];
    if (piece.chunk.shard != shard || piece.chunk.chunk != result.key.chunk || piece.arrived) continue;
    piece.rows = result.hidden;
    piece.dots = result.dots;
    piece.arrived = true;
    --work.awaited;
    if (!backward) work.stashed[static_cast<std::size_t>(work.unit)][i] = result.stashed ? 1 : 0;
    return backward ? backward_results(slot) : forward_results(slot);
  }
}

void Stage::forward_results(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (!work.dispatched || work.awaited > 0 || !work.mlp_done) return;
  const int unit = work.unit;
  RecycledVector<Tensor> pieces;
  const std::int64_t d = config_.model.hidden_size;
  for (const Piece& piece : work.pieces)
    if (piece.chunk.rows > 0) pieces.push_back(tensor_of(piece.rows, piece.chunk.rows, d, activation_type(config_)));
  Ops ops;
  combine_forward(ops, layer_view(slot, unit), pieces, next_input(slot, unit));
  if (!is_mtp(unit) && unit < last_unit()) return forward_unit(slot, unit + 1, std::move(ops));
  leave_forward(slot, std::move(ops));
}

void Stage::leave_forward(int slot, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  if (is_mtp(work.unit)) {
    const HeadSlot head = first_rows(memory.mtp_head, work.rows - work.sequences);
    const double divisor = static_cast<double>(work.mtp_target_tokens);
    head_forward(ops, config_.model, mtp_head_, head);
    capture_mtp_head(ops, slot);
    head_loss(ops, mtp_head_, head, work.mtp_batch.targets,
              static_cast<float>(divisor > 0 ? config_.train.mtp_loss_weight / divisor : 0), true);
    head_backward(ops, config_.model, mtp_head_, head, layer_view(slot, work.unit).g);
    return submit(SegmentClass::backward, slot, work.unit, Phase::head, std::move(ops));
  }
  if (!shape_.last) {
    if (ops.empty()) return send_downstream(slot);
    return submit(SegmentClass::forward, slot, head_unit(), Phase::head, std::move(ops));
  }
  if (work.generate) return generate_head(slot, std::move(ops));
  if (!work.train()) return evaluate_head(slot, std::move(ops));
  head_forward_and_loss(slot, std::move(ops));
}

void Stage::send_downstream(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  Message message;
  if (work.generate) {
    message = GenerateActivations{*work.generate, work.hidden_out};
  } else {
    const auto spans = static_cast<std::int32_t>(work.batch.spans.rows);
    Activations a{work.key,
                  static_cast<std::int32_t>(work.rows),
                  static_cast<std::int32_t>(work.sequences),
                  static_cast<std::int32_t>(work.length),
                  spans,
                  work.hidden_out,
                  context_.pool().take(static_cast<std::size_t>(work.rows) * 4),
                  context_.pool().take(static_cast<std::size_t>(spans) * 16)};
    std::memcpy(a.positions.data.get(), memory.positions.data, static_cast<std::size_t>(work.rows) * 4);
    std::memcpy(a.spans.data.get(), memory.spans.data, static_cast<std::size_t>(spans) * 16);
    message = std::move(a);
  }
  work.hidden_out = {};
  RecycledVector<Message> items;
  items.push_back(std::move(message));
  downstream_.enter(work.sequence, std::move(items));
  if (!work.train() && !work.generate) finish_evaluation(slot);
  drain_downstream();
}

// What only goes forward keeps its slot until its rows have left: what waits to leave is bounded by the slots.
void Stage::drain_downstream() {
  RecycledVector<std::int64_t> left;
  downstream_.drain([&](Message m) {
    left.push_back(downstream_.next());
    context_.post(stage_address(config_, replica_, shape_.stage + 1), std::move(m));
  });
  for (std::size_t slot = 0; !left.empty() && slot < works_.size(); ++slot) {
    const Work& work = works_[slot];
    if (work.busy && !work.train() && std::find(left.begin(), left.end(), work.sequence) != left.end())
      release(static_cast<int>(slot));
  }
}

void Stage::head_forward_and_loss(int slot, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  const HeadSlot head = first_rows(memory.head, work.rows);
  const float scale = work.target_tokens > 0 ? static_cast<float>(1.0 / static_cast<double>(work.target_tokens)) : 0;
  head_forward(ops, config_.model, head_, head);
  capture_head(ops, slot);
  if (work.has_policy) {
    head_logits(ops, head_, head);
    ops.push_back(policy_loss(slot, true));
    ops.push_back(Product{.a = head.d_logits, .b = head_.head, .c = head.d_final});
  } else {
    head_loss(ops, head_, head, work.batch.targets, scale, true);
  }
  if (config_.model.has_mtp()) {
    mtp_forward(ops, config_.model, mtp_, first_sequences(memory.mtp, work.sequences, work.length), head.final,
                work.sequences, layer_view(slot, shape_.layers).x);
  } else {
    head_backward(ops, config_.model, head_, head, layer_view(slot, last_unit()).g);
  }
  submit(SegmentClass::backward, slot, head_unit(), Phase::head, std::move(ops));
}

PolicyLoss Stage::policy_loss(int slot, bool gradient) const {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  const StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  const HeadSlot head = first_rows(memory.head, work.rows);
  const GrpoConfig& g = config_.grpo;
  PolicyLoss op;
  op.logits = head.logits;
  op.targets = work.batch.targets;
  op.policy = memory.policy.row_range(0, work.rows);
  op.results = memory.results.row_range(0, work.rows);
  if (memory.kept) op.kept = memory.kept.row_range(0, work.rows);
  if (gradient) op.dlogits = head.d_logits;
  op.temperature = static_cast<float>(g.temperature);
  op.clip_low = static_cast<float>(g.clip_low);
  op.clip_high = static_cast<float>(g.clip_high);
  op.dual_clip = static_cast<float>(g.dual_clip);
  op.beta = static_cast<float>(g.beta);
  op.importance_max = static_cast<float>(g.importance_max);
  op.decoupled = g.rollout_lag > 0;
  return op;
}

// The rows' results, rows in order; a log-probability is compared with the one recorded at sampling, bit for bit.
void Stage::sum_policy(Work& work, const StageSlot& memory) const {
  MicrobatchLoss& sums = work.loss;
  for (std::int64_t t = 0; t < work.rows; ++t) {
    if (*memory.targets.row<std::int32_t>(t) < 0) continue;
    const float *result = memory.results.row<float>(t), recorded = *memory.policy.row<float>(t);
    sums.loss_sum += static_cast<double>(result[0]);
    sums.kl_sum += static_cast<double>(result[2]);
    sums.clipped += static_cast<double>(result[3]);
    sums.entropy_sum += static_cast<double>(result[4]);
    sums.gap_max = std::max(sums.gap_max, std::abs(static_cast<double>(result[1]) - static_cast<double>(recorded)));
    sums.gaps += std::bit_cast<std::uint32_t>(result[1]) != std::bit_cast<std::uint32_t>(recorded) ? 1 : 0;
    ++sums.targets;
  }
}

namespace {

// Sum of the rows' losses, rows in order, and how many had a target.
std::pair<double, std::int64_t> sum_losses(const Tensor& loss, const Tensor& targets) {
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t t = 0; t < loss.rows; ++t) {
    if (*targets.row<std::int32_t>(t) < 0) continue;
    sum += static_cast<double>(*loss.row<float>(t));
    ++count;
  }
  return {sum, count};
}

}  // namespace

void Stage::head_done(int slot, int unit) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  if (!shape_.last) return send_downstream(slot);
  if (work.generate) return finish_generation(slot);
  if (is_mtp(unit)) {
    std::tie(work.loss.mtp_loss_sum, work.loss.mtp_targets) =
        sum_losses(first_rows(memory.mtp_head, work.rows - work.sequences).loss, work.mtp_batch.targets);
    work.backward = true;
    return backward_unit(slot, unit, {});
  }
  if (work.has_policy)
    sum_policy(work, memory);
  else
    std::tie(work.loss.loss_sum, work.loss.targets) =
        sum_losses(memory.head.loss.row_range(0, work.rows), memory.targets.row_range(0, work.rows));
  if (!work.train()) {
    finish_evaluation(slot);
    return release(slot);
  }
  if (config_.model.has_mtp()) return forward_unit(slot, shape_.layers, {});
  work.backward = true;
  if (trains(head_unit())) weights_ready(slot, head_unit());
  backward_unit(slot, last_unit(), {});
}

void Stage::evaluate_head(int slot, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const HeadSlot head = first_rows(slots_[static_cast<std::size_t>(slot)].head, work.rows);
  const HeadTensors& w = head_of(work);
  head_forward(ops, config_.model, w, head);
  if (work.has_policy) {
    head_logits(ops, w, head);
    ops.push_back(policy_loss(slot, false));
  } else {
    head_loss(ops, w, head, work.batch.targets, 0, false);
  }
  capture_logits(ops, slot);
  submit(SegmentClass::evaluate, slot, head_unit(), Phase::head, std::move(ops));
}

// What was evaluated is for the conductor, what was scored for the rollout buffer.
void Stage::finish_evaluation(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (work.key.kind != WorkKind::evaluate) {
    if (!shape_.last) return;
    Scored scored{work.key, context_.pool().take(static_cast<std::size_t>(work.rows) * 4)};
    const Tensor& results = slots_[static_cast<std::size_t>(slot)].results;
    for (std::int64_t t = 0; t < work.rows; ++t) scored.logprobs.as<float>()[t] = results.row<float>(t)[1];
    return context_.post({Role::rollout_buffer, 0}, std::move(scored));
  }
  context_.post(kConductor, EvaluationLoss{work.key, work.loss.loss_sum, work.loss.targets, work.evaluated});
}

void Stage::on(const GenerateBatch& batch, const Address&) { receive_generate(batch, {}); }

void Stage::on(const GenerateActivations& activations, const Address&) {
  receive_generate(activations.batch, activations.hidden);
}

void Stage::receive_generate(const GenerateBatch& batch, const Payload& hidden) {
  if (stale(batch.key.attempt)) return;
  const int slot = take_slot(batch.key, batch.rows, 1, batch.rows);
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  receive_geometry(work, memory, batch.positions, batch.spans, batch.spans_count);
  const auto copy = [](const Payload& from, const Tensor& to) { std::memcpy(to.data, from.data.get(), from.size); };
  copy(batch.ids, memory.ids);
  copy(batch.cache_rows, memory.cache_rows);
  copy(batch.sample_rows, memory.sample_rows);
  copy(batch.counters, memory.counters);
  work.batch.ids = memory.ids.row_range(0, work.rows);
  work.generate = batch;
  work.hidden_in = hidden;
  try_start(slot);
}

void Stage::generate_head(int slot, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  const GenerateBatch& batch = *work.generate;
  HeadSlot head = first_rows(memory.head, batch.samples);
  head.x = memory.head.d_final.row_range(0, batch.samples);  // the gradient's place is free: nothing is trained here
  ops.push_back(Gather{memory.head.x.row_range(0, work.rows), memory.sample_rows.row_range(0, batch.samples), head.x});
  head_forward(ops, config_.model, head_, head);
  head_logits(ops, head_, head);
  Sample sample;
  sample.logits = head.logits;
  sample.counter = memory.counters.row_range(0, batch.samples);
  sample.token = memory.tokens.row_range(0, batch.samples);
  sample.logprob = memory.logprobs.row_range(0, batch.samples);
  sample.key = batch.seed;
  sample.temperature = batch.temperature;
  sample.top_p = batch.top_p;
  if (batch.want_kept) sample.kept = memory.kept.row_range(0, batch.samples);
  ops.push_back(sample);
  if (batch.want_logits) {
    work.logits = context_.pool().take(static_cast<std::size_t>(head.logits.elements()) * 4);
    ops.push_back(Copy{head.logits, tensor_of(work.logits, head.logits.rows, head.logits.cols)});
  }
  submit(SegmentClass::evaluate, slot, head_unit(), Phase::head, std::move(ops));
}

void Stage::finish_generation(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  const std::int32_t samples = work.generate->samples;
  const std::size_t bytes = static_cast<std::size_t>(samples) * 4;
  Generated out{work.key, samples, context_.pool().take(bytes), context_.pool().take(bytes), work.logits, {}};
  std::memcpy(out.tokens.data.get(), memory.tokens.data, bytes);
  std::memcpy(out.logprobs.data.get(), memory.logprobs.data, bytes);
  if (work.generate->want_kept) {
    out.kept = context_.pool().take(static_cast<std::size_t>(samples * memory.kept.cols) * 4);
    std::memcpy(out.kept.data.get(), memory.kept.data, out.kept.size);
  }
  context_.post({Role::rollout, static_cast<std::uint32_t>(replica_)}, std::move(out));
  release(slot);
}

}  // namespace troupe
