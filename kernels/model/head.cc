#include "kernels/model/head.h"

namespace troupe {

HeadSlot carve_head(Carver& c, const ModelConfig& config, const SlotShape& s) {
  HeadSlot slot;
  const std::int64_t n = s.rows, d = config.hidden_size, v = config.vocab_size;
  slot.x = c.tensor(n, d, Dtype::f32);
  slot.norm_scale = c.tensor(n, 1, Dtype::f32);
  slot.final = c.tensor(n, d, s.act);
  slot.logits = c.tensor(n, v, Dtype::f32);
  slot.d_logits = s.act == Dtype::f32 ? slot.logits : c.tensor(n, v, s.act);
  slot.loss = c.shared_tensor(n, 1, Dtype::f32);
  slot.d_final = c.tensor(n, d, Dtype::f32);
  slot.d_norm = c.tensor(1, d, Dtype::f32);
  return slot;
}

HeadSlot first_rows(const HeadSlot& slot, std::int64_t rows) {
  HeadSlot view = slot;
  for (Tensor* t : {&view.x, &view.norm_scale, &view.final, &view.logits, &view.d_logits, &view.loss, &view.d_final})
    *t = t->row_range(0, rows);
  return view;
}

void head_forward(Ops& ops, const ModelConfig& config, const HeadTensors& w, const HeadSlot& slot) {
  ops.push_back(Norm{slot.x, w.norm, slot.final, slot.norm_scale, static_cast<float>(config.rms_norm_eps)});
}

void head_logits(Ops& ops, const HeadTensors& w, const HeadSlot& slot) {
  ops.push_back(Product{.a = slot.final, .b = w.head, .c = slot.logits, .transpose_b = true});
}

void head_loss(Ops& ops, const HeadTensors& w, const HeadSlot& slot, const Tensor& targets, float scale,
               bool gradient) {
  head_logits(ops, w, slot);
  ops.push_back(CrossEntropy{slot.logits, targets, slot.loss, gradient ? slot.d_logits : Tensor{}, scale});
  if (gradient) ops.push_back(Product{.a = slot.d_logits, .b = w.head, .c = slot.d_final});
}

void head_backward(Ops& ops, const ModelConfig& config, const HeadTensors& w, const HeadSlot& slot, const Tensor& dx) {
  ops.push_back(NormBackward{
      slot.x, w.norm, slot.norm_scale, slot.d_final, {}, dx, slot.d_norm, static_cast<float>(config.rms_norm_eps)});
}

void head_weight_gradients(Ops& ops, const HeadSlot& slot, const Tensor& norm_accumulator,
                           const Tensor& head_accumulator) {
  if (head_accumulator)
    ops.push_back(
        Product{.a = slot.d_logits, .b = slot.final, .c = head_accumulator, .transpose_a = true, .accumulate = true});
  if (norm_accumulator) ops.push_back(Add{norm_accumulator, slot.d_norm, norm_accumulator});
}

MtpSlot carve_mtp(Carver& c, const ModelConfig& config, const SlotShape& main) {
  MtpSlot slot;
  const std::int64_t n = main.rows - main.sequences, d = config.hidden_size;
  slot.ids = c.shared_tensor(n, 1, Dtype::i32);
  slot.targets = c.shared_tensor(n, 1, Dtype::i32);
  slot.positions = c.shared_tensor(n, 1, Dtype::i32);
  slot.embedded = c.tensor(n, d, Dtype::f32);
  slot.joined = c.tensor(n, 2 * d, main.act);
  slot.enorm_scale = c.tensor(n, 1, Dtype::f32);
  slot.hnorm_scale = c.tensor(n, 1, Dtype::f32);
  slot.d_x = c.tensor(n, d, Dtype::f32);
  slot.d_x_act = main.act == Dtype::f32 ? slot.d_x : c.tensor(n, d, main.act);
  slot.d_joined = c.tensor(n, 2 * d, main.act);
  slot.d_embedded = c.tensor(n, d, Dtype::f32);
  slot.d_enorm = c.tensor(main.sequences, d, Dtype::f32);
  slot.d_hnorm = c.tensor(main.sequences, d, Dtype::f32);
  return slot;
}

MtpSlot first_sequences(const MtpSlot& slot, std::int64_t sequences, std::int64_t length) {
  MtpSlot view = slot;
  const std::int64_t rows = sequences * (length - 1);
  for (Tensor* t : {&view.ids, &view.targets, &view.positions, &view.embedded, &view.joined, &view.enorm_scale,
                    &view.hnorm_scale, &view.d_x, &view.d_x_act, &view.d_joined, &view.d_embedded})
    *t = t->row_range(0, rows);
  view.d_enorm = slot.d_enorm.row_range(0, sequences);
  view.d_hnorm = slot.d_hnorm.row_range(0, sequences);
  return view;
}

namespace {

// Sequence b's rows: all but the last of its tokens in the main batch, all of its rows in the MTP batch.
Tensor main_rows(const Tensor& t, std::int64_t b, std::int64_t sequences) {
  const std::int64_t length = t.rows / sequences;
  return t.row_range(b * length, length - 1);
}
Tensor mtp_rows(const Tensor& t, std::int64_t b, std::int64_t sequences) {
  const std::int64_t length = t.rows / sequences;
  return t.row_range(b * length, length);
}

}  // namespace

void mtp_forward(Ops& ops, const ModelConfig& config, const MtpTensors& w, const MtpSlot& slot, const Tensor& final,
                 std::int64_t sequences, const Tensor& x) {
  const float eps = static_cast<float>(config.rms_norm_eps);
  const std::int64_t d = config.hidden_size;
  ops.push_back(Embedding{slot.ids, w.embedding, slot.embedded});
  ops.push_back(Norm{slot.embedded, w.enorm, slot.joined.columns(0, d), slot.enorm_scale, eps});
  for (std::int64_t b = 0; b < sequences; ++b) {
    ops.push_back(Norm{main_rows(final, b, sequences), w.hnorm, mtp_rows(slot.joined.columns(d, d), b, sequences),
                       mtp_rows(slot.hnorm_scale, b, sequences), eps});
  }
  ops.push_back(Product{.a = slot.joined, .b = w.eh_proj, .c = x, .transpose_b = true});
}

void mtp_backward(Ops& ops, const ModelConfig& config, const MtpTensors& w, const MtpSlot& slot, const Tensor& final,
                  std::int64_t sequences, const Tensor& d_final) {
  const float eps = static_cast<float>(config.rms_norm_eps);
  const std::int64_t d = config.hidden_size;
  if (slot.d_x.data != slot.d_x_act.data) ops.push_back(Copy{slot.d_x, slot.d_x_act});
  ops.push_back(Product{.a = slot.d_x_act, .b = w.eh_proj, .c = slot.d_joined});
  for (std::int64_t b = 0; b < sequences; ++b) {
    ops.push_back(NormBackward{mtp_rows(slot.embedded, b, sequences),
                               w.enorm,
                               mtp_rows(slot.enorm_scale, b, sequences),
                               mtp_rows(slot.d_joined.columns(0, d), b, sequences),
                               {},
                               mtp_rows(slot.d_embedded, b, sequences),
                               slot.d_enorm.row_range(b, 1),
                               eps});
    ops.push_back(NormBackward{main_rows(final, b, sequences), w.hnorm, mtp_rows(slot.hnorm_scale, b, sequences),
                               mtp_rows(slot.d_joined.columns(d, d), b, sequences), main_rows(d_final, b, sequences),
                               main_rows(d_final, b, sequences), slot.d_hnorm.row_range(b, 1), eps});
  }
}

void mtp_weight_gradients(Ops& ops, const MtpSlot& slot, std::int64_t sequences, const MtpTensors& acc) {
  if (acc.eh_proj)
    ops.push_back(
        Product{.a = slot.d_x_act, .b = slot.joined, .c = acc.eh_proj, .transpose_a = true, .accumulate = true});
  if (acc.enorm) ops.push_back(SumRows{slot.d_enorm.row_range(0, sequences), acc.enorm, true});
  if (acc.hnorm) ops.push_back(SumRows{slot.d_hnorm.row_range(0, sequences), acc.hnorm, true});
  if (acc.embedding) ops.push_back(EmbeddingGradient{slot.ids, slot.d_embedded, acc.embedding});
}

}  // namespace troupe
