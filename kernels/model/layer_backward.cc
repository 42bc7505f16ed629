// The backward of layer.cc, in reverse order. Accumulators use +=, everything else is assigned.
#include "kernels/model/layer.h"
#include "kernels/model/layer_views.h"
#include "kernels/model/linear.h"

namespace troupe {

void begin_backward(Ops& ops, const LayerSlot& slot) {
  if (slot.g.data != slot.g_act.data) ops.push_back(Copy{slot.g, slot.g_act});
}

void mlp_backward(Ops& ops, const LayerTensors& w, const LayerSlot& slot, const SlotScratch& scratch) {
  const Tensor dh = scratch.dh.columns(0, slot.h.cols);
  ops.push_back(linear_input_gradient(slot.fp8, slot.g_act, w.down, dh));
  ops.push_back(SwiGluBackward{slot.gate_up, dh, slot.d_gate_up, {}, {}});
  ops.push_back(linear_input_gradient(slot.fp8, slot.d_gate_up, w.gate_up, scratch.dz));
}

void routed_backward(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot,
                     const SlotScratch& scratch, const RoutedGradients& routed) {
  const Tensor shared = slot.mlp_out ? scratch.dz : Tensor{};
  ops.push_back(Combine{routed.pieces, slot.position, {}, shared, {}, scratch.dz});
  const bool whole = routed.near && routed.dots.size() == 1;
  std::int64_t row = 0;
  for (const Tensor& dots : routed.dots) {
    if (!whole) ops.push_back(Copy{dots, scratch.dots.row_range(row, dots.rows)});
    row += dots.rows;
  }
  RouterBackward op;
  op.scores = slot.scores;
  op.indices = slot.indices;
  op.weights = slot.weights;
  op.position = slot.position;
  op.dots = whole ? routed.dots.front() : scratch.dots.row_range(0, slot.sorted_token.rows);
  op.dlogits = slot.d_logits;
  op.sequence_fraction = slot.sequence_fraction;
  op.rows_per_sequence = slot.balance ? static_cast<int>(slot.z2.rows / slot.balance.cols) : 1;
  op.normalize = config.norm_topk_prob;
  op.scaling = static_cast<float>(config.routed_scaling_factor);
  op.balance_scale = routed.balance_scale;
  ops.push_back(op);
  ops.push_back(Product{.a = slot.d_logits, .b = w.gate, .c = scratch.dz, .add = scratch.dz});
}

namespace {

AttentionBackward attention_gradient(const ModelConfig& config, const LayerSlot& slot, const SlotScratch& scratch,
                                     const BatchTensors& batch) {
  AttentionBackward op;
  op.forward = attention_op(config, slot, batch, {});
  op.dout = scratch.d_attended;
  op.dq = query_of(config, slot.d_in, slot.d_q_own);
  const Tensor d_kv = keys_and_values_of(config, slot.d_in, slot.d_kv);
  if (config.is_mla()) {
    op.dk = d_kv;
    op.dv = d_kv.columns(config.qk_nope_head_dim, d_kv.cols - config.qk_nope_head_dim);
    op.dk_shared = shared_key_of(config, slot.d_in);
  } else {
    op.dk = d_kv.columns(0, d_kv.cols / 2);
    op.dv = d_kv.columns(d_kv.cols / 2, d_kv.cols / 2);
  }
  return op;
}

void latents_backward(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot,
                      const SlotScratch& scratch) {
  const Tensor d_kv_latent = scratch.d_latent.columns(0, config.kv_lora_rank);
  ops.push_back(linear_input_gradient(slot.fp8_attention, slot.d_kv, w.kv_b, d_kv_latent));
  ops.push_back(NormBackward{latent_of(config, slot.in),
                             w.kv_norm,
                             slot.kv_norm_scale,
                             d_kv_latent,
                             {},
                             latent_of(config, slot.d_in),
                             slot.d_kv_norm,
                             kLatentEps});
  if (!config.q_lora_rank) return;
  const Tensor d_q_latent = scratch.d_latent.columns(0, *config.q_lora_rank);
  ops.push_back(linear_input_gradient(slot.fp8_attention, slot.d_q_own, w.q_b, d_q_latent));
  ops.push_back(NormBackward{slot.in.columns(0, *config.q_lora_rank),
                             w.q_norm,
                             slot.q_norm_scale,
                             d_q_latent,
                             {},
                             slot.d_in.columns(0, *config.q_lora_rank),
                             slot.d_q_norm,
                             kLatentEps});
}

}  // namespace

void attention_backward(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot,
                        const SlotScratch& scratch, const BatchTensors& batch, const Tensor& previous_g) {
  const float eps = static_cast<float>(config.rms_norm_eps);
  ops.push_back(
      NormBackward{slot.u, w.post_norm, slot.norm2_scale, scratch.dz, slot.g, slot.du, slot.d_post_norm, eps});
  if (slot.du.data != slot.du_act.data) ops.push_back(Copy{slot.du, slot.du_act});
  ops.push_back(linear_input_gradient(slot.fp8_attention, slot.du_act, w.o, scratch.d_attended));
  ops.push_back(attention_gradient(config, slot, scratch, batch));
  rope_ops(ops, config, slot.d_in, slot.d_q_own, batch, true);
  if (config.is_mla()) latents_backward(ops, config, w, slot, scratch);
  ops.push_back(linear_input_gradient(slot.fp8_attention, slot.d_in, w.in_proj, scratch.dz));
  ops.push_back(
      NormBackward{slot.x, w.input_norm, slot.norm1_scale, scratch.dz, slot.du, previous_g, slot.d_input_norm, eps});
}

void weight_gradients(Ops& ops, const LayerSlot& slot, const LayerTensors& acc) {
  const auto outer = [&](bool fp8, const Tensor& dy, const Tensor& x, const Tensor& dw) {
    if (dw) ops.push_back(linear_weight_gradient(fp8, dy, x, dw));
  };
  const auto share = [&](const Tensor& part, const Tensor& dw) {
    if (dw) ops.push_back(Add{dw, part, dw});
  };
  outer(slot.fp8_attention, slot.d_in, slot.z1, acc.in_proj);
  if (acc.in_bias) ops.push_back(SumRows{slot.d_in, acc.in_bias, true});
  outer(slot.fp8_attention, slot.d_q_own, slot.q_latent, acc.q_b);
  outer(slot.fp8_attention, slot.d_kv, slot.kv_latent, acc.kv_b);
  outer(slot.fp8_attention, slot.du_act, slot.attended, acc.o);
  outer(slot.fp8, slot.d_gate_up, slot.z2, acc.gate_up);
  outer(slot.fp8, slot.g_act, slot.h, acc.down);
  if (acc.gate) ops.push_back(linear_weight_gradient(false, slot.d_logits, slot.z2, acc.gate));
  share(slot.d_input_norm, acc.input_norm);
  share(slot.d_post_norm, acc.post_norm);
  share(slot.d_q_norm, acc.q_norm);
  share(slot.d_kv_norm, acc.kv_norm);
}

}  // namespace troupe
