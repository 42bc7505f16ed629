// The backward way of a microbatch through a stage, and its weight gradients in strict order. It ends at the lowest layer
// that learns: below there is nothing that a gradient is for.
#include "actors/stage.h"
#include "kernels/base/mutant.h"

namespace troupe {

// Where dL/d(unit's input) goes: the unit before it, the embedding's or MTP's gradient, or a payload for upstream.
Tensor Stage::previous_gradient(int slot, int unit) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  if (is_mtp(unit)) return first_sequences(memory.mtp, work.sequences, work.length).d_x;
  if (unit > 0) return layer_view(slot, unit - 1).g;
  if (shape_.first) return memory.input_gradient.row_range(0, work.rows);
  const std::int64_t d = config_.model.hidden_size;
  work.hidden_out = context_.pool_to(stage_address(config_, replica_, shape_.stage - 1))
                        .take(static_cast<std::size_t>(work.rows * d) * 4);
  return tensor_of(work.hidden_out, work.rows, d);
}

void Stage::on(const ActivationGradients& gradients, const Address&) {
  if (stale(gradients.key.attempt)) return;
  const int slot = find_work(gradients.key);
  if (slot < 0) return;  // a late duplicate
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (work.backward) return;
  work.backward = true;
  work.hidden_in = gradients.gradient;
  if (!goes_back(last_unit())) return finish_backward(slot);
  const Tensor g = layer_view(slot, last_unit()).g;
  backward_unit(slot, last_unit(), {Copy{tensor_of(work.hidden_in, g.rows, g.cols), g}});
}

void Stage::backward_unit(int slot, int unit, Ops ops) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  work.unit = unit;
  const LayerSlot view = layer_view(slot, unit);
  const LayerTensors& w = weights_[static_cast<std::size_t>(unit)];
  if (recomputes(unit)) {
    attention_forward(ops, config_.model, layer_of(unit), w, view, batch_of(slot, unit), {}, true);
    if (view.mlp_out) mlp_forward(ops, w, view);
  }
  if (!above_begins(unit)) begin_backward(ops, view);
  if (!routed(unit)) {
    mlp_backward(ops, w, view, scratch_view(slot, unit));
    backward_to_previous(ops, slot, unit);
    return submit(SegmentClass::backward, slot, unit, Phase::layer_backward, std::move(ops), {.early = !ends(unit)});
  }
  const Dtype wire = activation_type(config_);
  const std::int64_t rows = view.sorted_token.rows, d = config_.model.hidden_size;
  const auto gather = [&](const Tensor& source, Payload& into) {
    into = shards_pool().take(static_cast<std::size_t>(rows * d) * bytes_of(wire));
    ops.push_back(Gather{source, view.sorted_token, tensor_of(into, rows, d, wire)});
  };
  gather(view.g_act, work.gathered);
  work.gates = shards_pool().take(static_cast<std::size_t>(rows) * 4);
  ops.push_back(Copy{view.sorted_weight, tensor_of(work.gates, rows, 1)});
  // Rows that a shard had no room to keep travel again; it recomputes the same bits.
  const auto& stashed = work.stashed[static_cast<std::size_t>(unit)];
  work.inputs = {};
  for (std::size_t i = 0; i < stashed.size() && !work.inputs; ++i)
    if (stashed[i] == 0) gather(view.z2, work.inputs);
  submit(SegmentClass::backward, slot, unit, Phase::gather, std::move(ops), {.early = rows_stay(work.gathered)});
}

void Stage::gather_done(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  const int unit = work.unit;
  dispatch(slot, Direction::backward);
  const LayerSlot view = layer_view(slot, unit);
  work.mlp_done = !view.mlp_out || !passes(unit);
  if (work.mlp_done) return backward_results(slot);
  Ops ops;
  mlp_backward(ops, weights_[static_cast<std::size_t>(unit)], view, scratch_view(slot, unit));
  submit(SegmentClass::backward, slot, unit, Phase::mlp_backward, std::move(ops), {.early = true});
}

void Stage::backward_results(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  if (work.awaited > 0 || !work.mlp_done) return;
  const int unit = work.unit;
  if (!passes(unit)) return go_down(slot, unit);  // its experts alone learn, and they have their rows
  const std::int64_t d = config_.model.hidden_size;
  const LayerSlot view = layer_view(slot, unit);
  RoutedGradients routed_gradients;
  routed_gradients.near = config_.layout.nodes == 1;
  for (const Piece& piece : work.pieces) {
    if (piece.chunk.rows == 0) continue;
    routed_gradients.pieces.push_back(tensor_of(piece.rows, piece.chunk.rows, d, activation_type(config_)));
    routed_gradients.dots.push_back(tensor_of(piece.dots, piece.chunk.rows, 1));
    routed_gradients.near = routed_gradients.near || piece.dots.on_device;
  }
  const std::int64_t length = view.x.rows / work.sequences;
  routed_gradients.balance_scale =
      static_cast<float>(config_.balance_alpha() / (static_cast<double>(length) * config_.train.batch_sequences));
  Ops ops;
  routed_backward(ops, config_.model, weights_[static_cast<std::size_t>(unit)], view, scratch_view(slot, unit),
                  routed_gradients);
  backward_to_previous(ops, slot, unit);
  if (is_mtp(unit)) {
    const HeadSlot head = first_rows(memory.head, work.rows);
    mtp_backward(ops, config_.model, mtp_, first_sequences(memory.mtp, work.sequences, work.length), head.final,
                 work.sequences, head.d_final);
    head_backward(ops, config_.model, head_, head, layer_view(slot, last_unit()).g);
  }
  submit(SegmentClass::backward, slot, unit, Phase::layer_backward, std::move(ops), {.early = !ends(unit)});
}

// Behind this unit the way back ends: what it leaves goes to others.
bool Stage::ends(int unit) const { return !is_mtp(unit) && (unit == 0 || !goes_back(unit - 1)); }

void Stage::backward_to_previous(Ops& ops, int slot, int unit) {
  attention_backward(ops, config_.model, weights_[static_cast<std::size_t>(unit)], layer_view(slot, unit),
                     scratch_view(slot, unit), batch_of(slot, unit), previous_gradient(slot, unit));
  if (!is_mtp(unit) && unit > 0 && goes_back(unit - 1) && above_begins(unit - 1))
    begin_backward(ops, layer_view(slot, unit - 1));
}

// The unit above makes this one's copy of the gradient right behind it: a GPU writes both at once.
bool Stage::above_begins(int unit) const { return !is_mtp(unit) && unit < last_unit(); }

// With recomputation the layers share their activations: the next backward waits for this one's weight gradients.
bool Stage::recomputes(int unit) const { return config_.train.recompute && !is_mtp(unit); }

void Stage::layer_backward_done(int slot, int unit) {
  if (!trains(unit)) return go_down(slot, unit);
  weights_ready(slot, unit);
  if (!recomputes(unit)) go_down(slot, unit);
}

void Stage::go_down(int slot, int unit) {
  if (is_mtp(unit) && trains(head_unit())) weights_ready(slot, head_unit());
  const int next = is_mtp(unit) ? last_unit() : unit - 1;
  if (next >= 0 && goes_back(next)) return backward_unit(slot, next, {});
  finish_backward(slot);
}

// Shards of the layers below the lowest that learns are told that this microbatch has nothing to add to their sums; then
// the gradient that goes on to the stage before is empty.
void Stage::finish_backward(int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  for (int unit = last_unit(); unit >= 0; --unit) {
    if (goes_back(unit) || !routed(unit)) continue;
    work.unit = unit;
    dispatch(slot, Direction::backward);
  }
  if (shape_.first) {
    if (trains(embedding_unit())) weights_ready(slot, embedding_unit());
  } else {
    context_.post(stage_address(config_, replica_, shape_.stage - 1),
                  ActivationGradients{work.key, static_cast<std::int32_t>(work.rows), work.hidden_out});
    work.hidden_out = {};
  }
  part_done(slot);
}

void Stage::weights_ready(int slot, int unit) {
  const std::int32_t m = works_[static_cast<std::size_t>(slot)].key.microbatch;
  unit_lanes_[static_cast<std::size_t>(unit)][static_cast<std::size_t>(lane_of(m))].ready[m] = slot;
  run_weights(unit, lane_of(m));
}

// A lane's sum runs over microbatches in increasing order: they are submitted so, as one strand.
void Stage::run_weights(int unit, int lane) {
  UnitLane& state = unit_lanes_[static_cast<std::size_t>(unit)][static_cast<std::size_t>(lane)];
  for (;;) {
    const auto next = mutant(Mutant::microbatches_by_arrival) ? state.ready.begin() : state.ready.find(state.next);
    if (next == state.ready.end()) return;
    const int slot = next->second;
    state.ready.erase(next);
    state.next += config_.train.gradient_lanes;
    const auto strand = 1 + unit * accumulators_.size() + static_cast<std::size_t>(lane);
    submit(SegmentClass::weight_gradient, slot, unit, Phase::weights, weight_ops(slot, unit, lane),
           {.strand = static_cast<std::uint32_t>(strand)});
  }
}

Ops Stage::weight_ops(int slot, int unit, int lane) {
  if (mutant(Mutant::wrong_lane)) lane = 0;
  Ops ops;
  Work& work = works_[static_cast<std::size_t>(slot)];
  StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  const auto acc = [&](const std::string& name) { return owner_.accumulators(lane, name, name); };
  const auto use = [&](int number) {
    for (const SharedUse& u : uses_)
      if (u.use == number) return owner_.extra(lane, u.begin, u.rows, u.cols);
    return Tensor{};
  };
  if (unit == head_unit()) {
    const Tensor head = config_.model.tie_word_embeddings ? use(1) : acc("lm_head.weight");
    head_weight_gradients(ops, first_rows(memory.head, work.rows), acc("model.norm.weight"), head);
  } else if (unit == embedding_unit()) {
    ops.push_back(EmbeddingGradient{work.batch.ids, memory.input_gradient.row_range(0, work.rows),
                                    acc("model.embed_tokens.weight")});
  } else {
    weight_gradients(ops, layer_view(slot, unit),
                     accumulators_[static_cast<std::size_t>(lane)][static_cast<std::size_t>(unit)]);
    if (is_mtp(unit)) {
      const std::string p = fmt::format("model.layers.{}.", config_.model.num_hidden_layers);
      const MtpTensors sums{acc(p + "enorm.weight"), acc(p + "hnorm.weight"), acc(p + "eh_proj.weight"), {}, use(2)};
      mtp_weight_gradients(ops, first_sequences(memory.mtp, work.sequences, work.length), work.sequences, sums);
      head_weight_gradients(ops, first_rows(memory.mtp_head, work.rows - work.sequences),
                            acc(p + "shared_head.norm.weight"), use(3));
    }
  }
  return ops;
}

void Stage::weights_done(int slot, int unit) {
  if (unit < shape_.layers && recomputes(unit)) go_down(slot, unit);
  part_done(slot);
}

void Stage::part_done(int slot) {
  if (--works_[static_cast<std::size_t>(slot)].units_left == 0) release(slot);
}

}  // namespace troupe
