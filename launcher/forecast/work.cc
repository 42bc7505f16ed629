#include "launcher/forecast/work.h"

#include "kernels/model/parameters.h"

namespace troupe {

namespace {

bool stays_wide(const std::string& name, bool fp8_attention) {
  return (!fp8_attention && name.find(".self_attn.") != std::string::npos) || name == "lm_head.weight" ||
         name == "model.embed_tokens.weight" || name.ends_with("mlp.gate.weight") || name.ends_with("eh_proj.weight");
}

PartWork work_of_matrix(const Parameter& p, double uses, bool fp8_attention) {
  const auto elements = static_cast<double>(p.elements());
  PartWork work;
  (stays_wide(p.name, fp8_attention) ? work.wide_flops : work.product_flops) = 2 * elements * uses;
  work.crossings = static_cast<double>(p.rows + p.cols) * uses;
  work.elements = elements;
  return work;
}

// A token uses so many of all experts: which ones they are changes nothing here.
double share_of_experts(const ModelConfig& model) {
  return static_cast<double>(model.num_experts_per_tok) / model.n_routed_experts;
}

}  // namespace

PartWork& PartWork::operator+=(const PartWork& more) {
  product_flops += more.product_flops;
  wide_flops += more.wide_flops;
  attention_flops += more.attention_flops;
  crossings += more.crossings;
  elements += more.elements;
  moe_layers += more.moe_layers;
  return *this;
}

PartWork ModelWork::dense() const {
  PartWork sum = embedding;
  for (const LayerWork& layer : layers) sum += layer.dense;
  return sum += head;
}

PartWork ModelWork::experts() const {
  PartWork sum;
  for (const LayerWork& layer : layers) sum += layer.experts;
  return sum;
}

ModelWork work_of(const ModelConfig& model, std::int64_t sequence_tokens, bool fp8_attention) {
  ModelWork work;
  work.layers.resize(static_cast<std::size_t>(model.layers_with_mtp()));
  for (const Parameter& p : model_parameters(model)) {
    if (p.dimensions != 2) continue;
    if (p.kind == ParameterKind::expert)
      work.layers[static_cast<std::size_t>(p.layer)].experts +=
          work_of_matrix(p, share_of_experts(model), fp8_attention);
    else if (p.layer >= 0)
      work.layers[static_cast<std::size_t>(p.layer)].dense += work_of_matrix(p, 1, fp8_attention);
    else
      (p.name == "lm_head.weight" ? work.head : work.embedding) += work_of_matrix(p, 0, fp8_attention);
  }
  const PartWork table{.wide_flops = 2.0 * model.vocab_size * model.hidden_size,
                       .crossings = static_cast<double>(model.vocab_size) + model.hidden_size};
  work.head += table;
  const double keys = static_cast<double>(sequence_tokens) / 2;
  for (std::size_t l = 0; l < work.layers.size(); ++l) {
    PartWork& dense = work.layers[l].dense;
    dense.attention_flops = 2.0 * model.num_attention_heads * (model.qk_head_dim() + model.value_head_dim()) * keys;
    if (model.is_moe_layer(static_cast<int>(l))) dense.moe_layers = work.layers[l].experts.moe_layers = 1;
    if (static_cast<int>(l) >= model.num_hidden_layers) dense += table;
  }
  return work;
}

double causal_flops_per_token(const ModelConfig& model, std::int64_t sequence_tokens) {
  return training_flops_per_token(model, sequence_tokens / 2);
}

Rates rates_of(const HardwareConfig& hardware, const std::string& dtype) {
  const bool wide = dtype == "float32";
  const double threads = hardware.compute_threads * 1e9;
  const double wide_gflops = wide ? hardware.float32_gflops : hardware.bfloat16_gflops;
  return {.product_flops = (dtype == "fp8" ? hardware.fp8_gflops : wide_gflops) * hardware.product_share * threads,
          .wide_flops = wide_gflops * hardware.product_share * threads,
          .memory_bytes = hardware.memory_gbytes_per_second * hardware.memory_share * threads,
          .element_bytes = wide ? 4.0 : 2.0};
}

PassSeconds& PassSeconds::operator+=(const PassSeconds& more) {
  products += more.products;
  traffic += more.traffic;
  return *this;
}

PassSeconds operator*(double times, const PassSeconds& pass) { return {times * pass.products, times * pass.traffic}; }

namespace {

PassSeconds pass(const PartWork& work, double tokens, double attention_times, double bytes, const Rates& rates) {
  const double wide = work.wide_flops + attention_times * work.attention_flops;
  return {tokens * (work.product_flops / rates.product_flops + wide / rates.wide_flops), bytes / rates.memory_bytes};
}

}  // namespace

PassSeconds forward_pass(const PartWork& work, double tokens, double elements, const Rates& rates) {
  return pass(work, tokens, 1, rates.element_bytes * (2 * work.crossings * tokens + elements), rates);
}

PassSeconds backward_pass(const PartWork& work, double tokens, double elements, const Rates& rates) {
  return pass(work, tokens, 2.5, rates.element_bytes * (3 * work.crossings * tokens + elements), rates);
}

PassSeconds weights_pass(const PartWork& work, double tokens, double elements, const Rates& rates) {
  return pass(work, tokens, 0, rates.element_bytes * work.crossings * tokens + 8 * elements, rates);
}

}  // namespace troupe
