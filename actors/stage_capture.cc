// What a stage shows to a Capture: the values that the fixtures of `troupe check` name.
#include <cmath>

#include "actors/stage.h"

namespace troupe {

void Stage::capture_tensor(const std::string& name, const Tensor& t, std::vector<std::int64_t> shape) {
  Capture::Values out;
  out.shape = std::move(shape);
  for (std::int64_t r = 0; r < t.rows; ++r) {
    for (std::int64_t c = 0; c < t.cols; ++c) {
      switch (t.dtype) {
        case Dtype::f32:
          out.f32.push_back(t.row<float>(r)[c]);
          break;
        case Dtype::bf16:
          out.f32.push_back(from_bf16(t.row<std::uint16_t>(r)[c]));
          break;
        case Dtype::i32:
          out.i64.push_back(t.row<std::int32_t>(r)[c]);
          break;
        case Dtype::f64:
          out.f32.push_back(static_cast<float>(t.row<double>(r)[c]));
          break;
        case Dtype::e4m3:
          out.f32.push_back(from_e4m3(t.row<std::uint8_t>(r)[c]));
          break;
      }
    }
  }
  capture_->values[name] = std::move(out);
}

// Called when a unit's forward is done: its input and its routing.
void Stage::capture_unit(int slot, int unit) {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  if (!capture_->forward || !work.train()) return;
  const LayerSlot view = layer_view(slot, unit);
  const std::int64_t d = config_.model.hidden_size, n = view.x.rows;
  const std::int64_t length = n / work.sequences;
  capture_tensor(is_mtp(unit) ? "mtp.0.proj" : fmt::format("hidden.{}", layer_of(unit)), view.x,
                 {work.sequences, length, d});
  if (!routed(unit)) return;
  const std::string p = fmt::format("router.{}.", layer_of(unit));
  capture_tensor(p + "scores", view.scores, {n, view.scores.cols});
  capture_tensor(p + "topk_indices", view.indices, {n, view.indices.cols});
  capture_tensor(p + "topk_weights", view.weights, {n, view.weights.cols});
  capture_tensor(p + "counts", view.counts, {view.counts.cols});
}

void Stage::capture_head(int slot) {
  const Work& work = works_[static_cast<std::size_t>(slot)];
  const StageSlot& memory = slots_[static_cast<std::size_t>(slot)];
  const std::int64_t d = config_.model.hidden_size;
  if (work.key.kind == WorkKind::evaluate) {
    const HeadSlot head = first_rows(memory.head, work.rows);
    return capture_tensor("logits", head.logits, {work.sequences, work.length, head.logits.cols});
  }
  if (!capture_->forward || !work.train()) return;
  if (is_mtp(work.unit)) {
    const HeadSlot head = first_rows(memory.mtp_head, work.rows - work.sequences);
    capture_tensor("mtp.0.hidden", head.x, {work.sequences, work.length - 1, d});
    // The logits' own place holds their gradient by now: the same chains of fused multiply-adds again.
    Capture::Values logits{{work.sequences, work.length - 1, head.logits.cols}, {}, {}};
    for (std::int64_t t = 0; t < head.final.rows && head.final.dtype == Dtype::f32; ++t) {
      for (std::int64_t v = 0; v < head.logits.cols; ++v) {
        float sum = 0;
        for (std::int64_t k = 0; k < d; ++k)
          sum = std::fma(head.final.row<float>(t)[k], mtp_head_.head.row<float>(v)[k], sum);
        logits.f32.push_back(sum);
      }
    }
    capture_->values["mtp.0.logits"] = std::move(logits);
    return;
  }
  const HeadSlot head = first_rows(memory.head, work.rows);
  capture_tensor(fmt::format("hidden.{}", config_.model.num_hidden_layers), head.x, {work.sequences, work.length, d});
  capture_tensor("hidden.final", head.final, {work.sequences, work.length, d});
}

void Stage::capture_gradients() {
  const auto& parameters = owner_.trained().parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    if (p.kind == ParameterKind::router_bias) continue;
    const std::vector<std::int64_t> shape =
        p.dimensions == 1 ? std::vector<std::int64_t>{p.cols} : std::vector<std::int64_t>{p.rows, p.cols};
    capture_tensor("grad." + p.name, owner_.gradient(i), shape);
  }
}

// After each step, by the step's number from 1.
void Stage::capture_router_bias() {
  const auto& parameters = owner_.block().parameters();
  for (const Parameter& p : parameters) {
    if (p.kind != ParameterKind::router_bias) continue;
    capture_tensor(fmt::format("bias.{}.{}", owner_.version(), p.layer), owner_.masters(p.name, p.name), {p.cols});
  }
}

}  // namespace troupe
