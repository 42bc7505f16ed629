// What a stage shows to a Capture: the values that the fixtures of `troupe check` name. Each is copied by the segment that
// makes it final; nothing else of the microbatch is under way then.
#include "actors/stage.h"

namespace troupe {

// At the end of a unit's attention: its input and its routing.
void Stage::capture_unit(Ops& ops, int slot, int unit) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (capture_ == nullptr || !capture_->forward || !work.train()) return;
  const LayerSlot view = layer_view(slot, unit);
  const std::int64_t d = config_.model.hidden_size, n = view.x.rows;
  const auto add = [&](const std::string& name, const Tensor& tensor, std::vector<std::int64_t> shape) {
    work.captured.add(ops, context_.pool(), name, tensor, std::move(shape));
  };
  add(is_mtp(unit) ? "mtp.0.proj" : fmt::format("hidden.{}", layer_of(unit)), view.x,
      {work.sequences, n / work.sequences, d});
  if (!routed(unit)) return;
  const std::string p = fmt::format("router.{}.", layer_of(unit));
  add(p + "scores", view.scores, {n, view.scores.cols});
  add(p + "topk_indices", view.indices, {n, view.indices.cols});
  add(p + "topk_weights", view.weights, {n, view.weights.cols});
  add(p + "counts", view.counts, {view.counts.cols});
}

// At the end of an evaluation.
void Stage::capture_logits(Ops& ops, int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (capture_ == nullptr || work.key.kind != WorkKind::evaluate) return;
  const Tensor& logits = slots_[static_cast<std::size_t>(slot)].head.logits;
  work.captured.add(ops, context_.pool(), "logits", logits.row_range(0, work.rows),
                    {work.sequences, work.length, logits.cols});
}

// After the head's forward.
void Stage::capture_head(Ops& ops, int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (capture_ == nullptr || !capture_->forward || !work.train()) return;
  const HeadSlot head = first_rows(slots_[static_cast<std::size_t>(slot)].head, work.rows);
  const std::vector<std::int64_t> shape{work.sequences, work.length, config_.model.hidden_size};
  work.captured.add(ops, context_.pool(), fmt::format("hidden.{}", config_.model.num_hidden_layers), head.x, shape);
  work.captured.add(ops, context_.pool(), "hidden.final", head.final, shape);
}

// After the same of multi-token prediction. Its logits' own place will hold their gradient: they are made once more.
void Stage::capture_mtp_head(Ops& ops, int slot) {
  Work& work = works_[static_cast<std::size_t>(slot)];
  if (capture_ == nullptr || !capture_->forward || !work.train()) return;
  const HeadSlot head = first_rows(slots_[static_cast<std::size_t>(slot)].mtp_head, work.rows - work.sequences);
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    work.captured.add(ops, context_.pool(), name, tensor, {work.sequences, work.length - 1, tensor.cols});
  };
  add("mtp.0.hidden", head.x);
  head_logits(ops, mtp_head_, head);
  add("mtp.0.logits", head.logits);
}

// Behind a decision, by the step's number from 1.
void Stage::capture_router_bias() {
  Ops ops;
  for (const Parameter& p : owner_.block().parameters()) {
    if (p.kind != ParameterKind::router_bias) continue;
    step_captured_.add(ops, context_.pool(), fmt::format("bias.{}.{}", owner_.version() + 1, p.layer),
                       owner_.masters(p.name, p.name), {p.cols});
  }
  run_all({std::move(ops)}, &Stage::applied);
}

}  // namespace troupe
