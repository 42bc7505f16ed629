#include "kernels/model/layer.h"

#include <algorithm>

#include "kernels/model/layer_views.h"
#include "kernels/model/linear.h"
#include "kernels/model/rope_table.h"

namespace troupe {

LayerTensors bind_layer(const ModelConfig& config, int layer, const TensorLookup& matrices,
                        const TensorLookup& masters) {
  const std::string p = fmt::format("model.layers.{}.", layer), a = p + "self_attn.";
  LayerTensors w;
  w.input_norm = masters(p + "input_layernorm.weight", p + "input_layernorm.weight");
  w.post_norm = masters(p + "post_attention_layernorm.weight", p + "post_attention_layernorm.weight");
  if (config.is_mla()) {
    const std::string query = config.q_lora_rank ? "q_a_proj.weight" : "q_proj.weight";
    w.in_proj = matrices(a + query, a + "kv_a_proj_with_mqa.weight");
    if (config.q_lora_rank) {
      w.q_norm = masters(a + "q_a_layernorm.weight", a + "q_a_layernorm.weight");
      w.q_b = matrices(a + "q_b_proj.weight", a + "q_b_proj.weight");
    }
    w.kv_norm = masters(a + "kv_a_layernorm.weight", a + "kv_a_layernorm.weight");
    w.kv_b = matrices(a + "kv_b_proj.weight", a + "kv_b_proj.weight");
  } else {
    w.in_proj = matrices(a + "q_proj.weight", a + "v_proj.weight");
    if (config.qkv_bias()) w.in_bias = masters(a + "q_proj.bias", a + "v_proj.bias");
  }
  w.o = matrices(a + "o_proj.weight", a + "o_proj.weight");
  std::string mlp = p + "mlp.";
  if (config.is_moe_layer(layer)) {
    w.gate = masters(mlp + "gate.weight", mlp + "gate.weight");
    w.gate_bias = masters(mlp + "gate.e_score_correction_bias", mlp + "gate.e_score_correction_bias");
    if (config.n_shared_experts == 0) return w;
    mlp += "shared_experts.";
  }
  w.gate_up = matrices(mlp + "gate_proj.weight", mlp + "up_proj.weight");
  w.down = matrices(mlp + "down_proj.weight", mlp + "down_proj.weight");
  return w;
}

namespace {

int mlp_width(const ModelConfig& config, int layer) {
  return config.is_moe_layer(layer) ? config.shared_intermediate_size() : config.intermediate_size;
}

int widest_latent(const ModelConfig& config) {
  return config.is_mla() ? std::max(config.kv_lora_rank, config.q_lora_rank.value_or(0)) : 0;
}

void carve_attention(Carver& c, const ModelConfig& config, const SlotShape& s, LayerSlot& slot) {
  const AttentionWidths width = attention_widths(config);
  const std::int64_t n = s.rows, heads = config.num_attention_heads;
  slot.norm1_scale = c.tensor(n, 1, Dtype::f32);
  slot.z1 = c.tensor(n, config.hidden_size, s.act);
  slot.in = c.tensor(n, width.in, s.act);
  if (config.is_mla()) {
    if (config.q_lora_rank) {
      slot.q_norm_scale = c.tensor(n, 1, Dtype::f32);
      slot.q_latent = c.tensor(n, *config.q_lora_rank, s.act);
      slot.q_own = c.tensor(n, width.q, s.act);
      slot.d_q_own = c.tensor(n, width.q, s.act);
      slot.d_q_norm = c.tensor(1, *config.q_lora_rank, Dtype::f32);
    }
    slot.kv_norm_scale = c.tensor(n, 1, Dtype::f32);
    slot.kv_latent = c.tensor(n, config.kv_lora_rank, s.act);
    slot.kv = c.tensor(n, width.kv, s.act);
    slot.d_kv = c.tensor(n, width.kv, s.act);
    slot.d_kv_norm = c.tensor(1, config.kv_lora_rank, Dtype::f32);
  }
  slot.attended = c.tensor(n, heads * config.value_head_dim(), s.act);
  slot.row_max = c.tensor(n, heads, Dtype::f32);
  slot.row_scale = c.tensor(n, heads, Dtype::f32);
  slot.d_in = c.tensor(n, width.in, s.act);
}

void carve_router(Carver& c, const ModelConfig& config, const SlotShape& s, LayerSlot& slot) {
  const std::int64_t n = s.rows, experts = config.n_routed_experts, k = config.num_experts_per_tok;
  slot.scores = c.tensor(n, experts, Dtype::f32);
  slot.indices = c.tensor(n, k, Dtype::i32);
  slot.weights = c.tensor(n, k, Dtype::f32);
  slot.position = c.tensor(n, k, Dtype::i32);
  slot.sorted_token = c.tensor(n * k, 1, Dtype::i32);
  slot.sorted_weight = c.tensor(n * k, 1, Dtype::f32);
  slot.counts = c.shared_tensor(1, experts, Dtype::i32);
  slot.d_logits = c.tensor(n, experts, Dtype::f32);
  if (config.aux_loss_alpha > 0) {
    slot.sequence_fraction = c.tensor(s.sequences, experts, Dtype::f32);
    slot.balance = c.shared_tensor(1, s.sequences, Dtype::f32);
  }
}

}  // namespace

AttentionWidths attention_widths(const ModelConfig& config) {
  AttentionWidths w;
  const int heads = config.num_attention_heads;
  w.q = heads * config.qk_head_dim();
  if (config.is_mla()) {
    w.q_in = config.q_lora_rank.value_or(w.q);
    w.kv = heads * (config.qk_nope_head_dim + config.v_head_dim);
    w.in = w.q_in + config.kv_lora_rank + config.qk_rope_head_dim;
  } else {
    w.q_in = w.q;
    w.kv = 2 * config.num_key_value_heads * config.attention_head_dim();
    w.in = w.q + w.kv;
  }
  return w;
}

SlotScratch carve_scratch(Carver& c, const ModelConfig& config, const SlotShape& s) {
  SlotScratch scratch;
  const std::int64_t n = s.rows, d = config.hidden_size;
  if (s.act != Dtype::f32) {
    scratch.g = c.tensor(n, d, Dtype::f32);
    scratch.du = c.tensor(n, d, Dtype::f32);
  }
  scratch.dz = c.tensor(n, d, Dtype::f32);
  scratch.d_attended = c.tensor(n, config.num_attention_heads * config.value_head_dim(), s.act);
  scratch.d_latent = c.tensor(n, widest_latent(config), s.act);
  scratch.dh = c.tensor(n, std::max(config.intermediate_size, config.shared_intermediate_size()), s.act);
  if (config.is_mla()) scratch.dots = c.tensor(n * config.num_experts_per_tok, 1, Dtype::f32);
  return scratch;
}

LayerSlot carve_layer(Carver& c, const ModelConfig& config, int layer, const SlotShape& s, const SlotScratch& scratch) {
  LayerSlot slot;
  slot.fp8 = s.fp8;
  slot.fp8_attention = s.fp8_attention;
  const std::int64_t n = s.rows, d = config.hidden_size, width = mlp_width(config, layer);
  slot.x = c.tensor(n, d, Dtype::f32);
  carve_attention(c, config, s, slot);
  slot.u = c.tensor(n, d, Dtype::f32);
  slot.norm2_scale = c.tensor(n, 1, Dtype::f32);
  slot.z2 = c.tensor(n, d, s.act);
  slot.gate_up = c.tensor(n, 2 * width, s.act);
  slot.h = c.tensor(n, width, s.act);
  if (width > 0) slot.mlp_out = c.tensor(n, d, Dtype::f32);
  if (config.is_moe_layer(layer)) carve_router(c, config, s, slot);
  slot.g_act = c.tensor(n, d, s.act);
  slot.du_act = c.tensor(n, d, s.act);
  slot.g = s.act == Dtype::f32 ? slot.g_act : scratch.g;
  slot.du = s.act == Dtype::f32 ? slot.du_act : scratch.du;
  slot.d_gate_up = c.tensor(n, 2 * width, s.act);
  slot.d_input_norm = c.tensor(1, d, Dtype::f32);
  slot.d_post_norm = c.tensor(1, d, Dtype::f32);
  return slot;
}

LayerSlot carve_kept(Carver& c, const ModelConfig& config, int layer, const SlotShape& s, const SlotScratch& scratch,
                     const LayerSlot& shared) {
  LayerSlot slot = shared;
  slot.x = c.tensor(s.rows, config.hidden_size, Dtype::f32);
  slot.g_act = c.tensor(s.rows, config.hidden_size, s.act);
  slot.g = s.act == Dtype::f32 ? slot.g_act : scratch.g;
  if (config.is_moe_layer(layer)) carve_router(c, config, s, slot);
  return slot;
}

LayerSlot first_rows(const LayerSlot& slot, std::int64_t rows, std::int64_t sequences) {
  LayerSlot v = slot;
  for (Tensor* t : {&v.x,
                    &v.norm1_scale,
                    &v.z1,
                    &v.in,
                    &v.q_norm_scale,
                    &v.q_latent,
                    &v.q_own,
                    &v.kv_norm_scale,
                    &v.kv_latent,
                    &v.kv,
                    &v.attended,
                    &v.row_max,
                    &v.row_scale,
                    &v.u,
                    &v.norm2_scale,
                    &v.z2,
                    &v.gate_up,
                    &v.h,
                    &v.mlp_out,
                    &v.scores,
                    &v.indices,
                    &v.weights,
                    &v.position,
                    &v.g,
                    &v.g_act,
                    &v.du,
                    &v.du_act,
                    &v.d_gate_up,
                    &v.d_logits,
                    &v.d_q_own,
                    &v.d_kv,
                    &v.d_in}) {
    if (*t) *t = t->row_range(0, rows);
  }
  for (Tensor* t : {&v.sorted_token, &v.sorted_weight})
    if (*t) *t = t->row_range(0, rows * slot.indices.cols);
  if (v.balance) {
    v.balance = v.balance.columns(0, sequences);
    v.sequence_fraction = v.sequence_fraction.row_range(0, sequences);
  }
  return v;
}

SlotScratch first_rows(const SlotScratch& scratch, std::int64_t rows) {
  SlotScratch v = scratch;
  const std::int64_t all = scratch.dz.rows;
  for (Tensor* t : {&v.g, &v.du, &v.dz, &v.d_attended, &v.d_latent, &v.dh})
    if (*t) *t = t->row_range(0, rows);
  if (v.dots) v.dots = v.dots.row_range(0, rows * (v.dots.rows / all));
  return v;
}

Attention attention_op(const ModelConfig& config, const LayerSlot& slot, const BatchTensors& batch,
                       const LayerCache& cache) {
  Attention op;
  op.spans = batch.spans;
  op.out = slot.attended;
  op.row_max = slot.row_max;
  op.row_scale = slot.row_scale;
  op.heads = config.num_attention_heads;
  op.v_dim = config.value_head_dim();
  op.scale = softmax_scale(config);
  op.q = query_of(config, slot.in, slot.q_own);
  const Tensor kv = cache.rows ? cache.kv : keys_and_values_of(config, slot.in, slot.kv);
  if (config.is_mla()) {
    op.kv_heads = config.num_attention_heads;
    op.own_dim = config.qk_nope_head_dim;
    op.shared_dim = config.qk_rope_head_dim;
    op.k_head_stride = op.v_head_stride = config.qk_nope_head_dim + config.v_head_dim;
    op.k = kv;
    op.v = kv.columns(config.qk_nope_head_dim, kv.cols - config.qk_nope_head_dim);
    op.k_shared = cache.rows ? cache.k_rope : shared_key_of(config, slot.in);
  } else {
    op.kv_heads = config.num_key_value_heads;
    op.own_dim = config.attention_head_dim();
    op.k_head_stride = op.v_head_stride = config.attention_head_dim();
    op.k = kv.columns(0, kv.cols / 2);
    op.v = kv.columns(kv.cols / 2, kv.cols / 2);
  }
  return op;
}

// Rotates queries and keys (or their gradients back) where they stand.
void rope_ops(Ops& ops, const ModelConfig& config, const Tensor& in, const Tensor& q_own, const BatchTensors& batch,
              bool inverse) {
  const auto rotate = [&](const Tensor& x, int heads, int head_stride, int offset) {
    ops.push_back(Rope{.x = x,
                       .positions = batch.positions,
                       .cosine = batch.cosine,
                       .sine = batch.sine,
                       .heads = heads,
                       .head_stride = head_stride,
                       .offset = offset,
                       .dim = config.rope_dim(),
                       .interleaved = config.is_mla() && config.rope_interleave,
                       .inverse = inverse});
  };
  const Tensor q = query_of(config, in, q_own);
  if (config.is_mla()) {
    rotate(q, config.num_attention_heads, config.qk_head_dim(), config.qk_nope_head_dim);
    rotate(shared_key_of(config, in), 1, config.rope_dim(), 0);
  } else {
    const Tensor kv = keys_and_values_of(config, in, {});
    rotate(q, config.num_attention_heads, config.qk_head_dim(), 0);
    rotate(kv.columns(0, kv.cols / 2), config.num_key_value_heads, config.qk_head_dim(), 0);
  }
}

namespace {

void project(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot) {
  const float eps = static_cast<float>(config.rms_norm_eps);
  ops.push_back(Norm{slot.x, w.input_norm, slot.z1, slot.norm1_scale, eps});
  ops.push_back(linear_forward(slot.fp8_attention, slot.z1, w.in_proj, slot.in, w.in_bias));
  if (!config.is_mla()) return;
  // The two latent norms use 1e-6 whatever rms_norm_eps says, as DeepSeek's code does.
  if (config.q_lora_rank) {
    ops.push_back(
        Norm{slot.in.columns(0, *config.q_lora_rank), w.q_norm, slot.q_latent, slot.q_norm_scale, kLatentEps});
    ops.push_back(linear_forward(slot.fp8_attention, slot.q_latent, w.q_b, slot.q_own));
  }
  ops.push_back(Norm{latent_of(config, slot.in), w.kv_norm, slot.kv_latent, slot.kv_norm_scale, kLatentEps});
  ops.push_back(linear_forward(slot.fp8_attention, slot.kv_latent, w.kv_b, slot.kv));
}

void route(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot, bool reuse_routing) {
  Router op;
  op.x = slot.z2;
  op.weight = w.gate;
  op.bias = w.gate_bias;
  op.scores = slot.scores;
  op.indices = slot.indices;
  op.weights = slot.weights;
  op.position = slot.position;
  op.sorted_token = slot.sorted_token;
  op.sorted_weight = slot.sorted_weight;
  op.counts = slot.counts;
  op.sequence_fraction = slot.sequence_fraction;
  op.balance = slot.balance;
  op.groups = config.n_group;
  op.groups_kept = config.topk_group;
  op.rows_per_sequence = slot.balance ? static_cast<int>(slot.z2.rows / slot.balance.cols) : 1;
  op.normalize = config.norm_topk_prob;
  op.reuse_indices = reuse_routing;
  op.scaling = static_cast<float>(config.routed_scaling_factor);
  ops.push_back(op);
}

}  // namespace

void attention_forward(Ops& ops, const ModelConfig& config, int layer, const LayerTensors& w, const LayerSlot& slot,
                       const BatchTensors& batch, const LayerCache& cache, bool reuse_routing) {
  project(ops, config, w, slot);
  rope_ops(ops, config, slot.in, slot.q_own, batch, false);
  if (cache.rows) {
    ops.push_back(Scatter{keys_and_values_of(config, slot.in, slot.kv), cache.rows, cache.kv});
    if (config.is_mla()) ops.push_back(Scatter{shared_key_of(config, slot.in), cache.rows, cache.k_rope});
  }
  ops.push_back(attention_op(config, slot, batch, cache));
  ops.push_back(linear_forward(slot.fp8_attention, slot.attended, w.o, slot.u, {}, slot.x));
  ops.push_back(Norm{slot.u, w.post_norm, slot.z2, slot.norm2_scale, static_cast<float>(config.rms_norm_eps)});
  if (config.is_moe_layer(layer)) route(ops, config, w, slot, reuse_routing);
}

void mlp_forward(Ops& ops, const LayerTensors& w, const LayerSlot& slot) {
  ops.push_back(linear_forward(slot.fp8, slot.z2, w.gate_up, slot.gate_up));
  ops.push_back(SwiGlu{slot.gate_up, slot.h});
  ops.push_back(linear_forward(slot.fp8, slot.h, w.down, slot.mlp_out));
}

void combine_forward(Ops& ops, const LayerSlot& slot, const RecycledVector<Tensor>& pieces, const Tensor& next_x) {
  if (slot.indices) {
    ops.push_back(Combine{pieces, slot.position, slot.weights, slot.u, slot.mlp_out, next_x});
  } else {
    ops.push_back(Add{slot.u, slot.mlp_out, next_x});
  }
}

}  // namespace troupe
