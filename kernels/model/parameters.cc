// The list of a model's tensors. Every part of the program that names, places, initializes, saves or counts weights
// reads this one list; its names and shapes are Hugging Face's, letter for letter.
#include "kernels/model/parameters.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/base/check.h"

namespace troupe {
namespace {

class Lister {
 public:
  Lister(const ModelConfig& config, const Initialization& initialization) : config_(config), start_(initialization) {
    CHECK(start_.scheme == "scaled" || start_.scheme == "normal", "unknown initialization {}", start_.scheme);
  }
  std::vector<Parameter> take() { return std::move(list_); }

  void embedding() { matrix("model.embed_tokens.weight", -1, config_.vocab_size, config_.hidden_size); }

  void block(int layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    norm(prefix + "input_layernorm.weight", layer, config_.hidden_size);
    if (config_.is_mla()) {
      latent_attention(prefix + "self_attn.", layer);
    } else {
      grouped_attention(prefix + "self_attn.", layer);
    }
    norm(prefix + "post_attention_layernorm.weight", layer, config_.hidden_size);
    if (config_.is_moe_layer(layer)) {
      experts(prefix + "mlp.", layer);
    } else {
      mlp(prefix + "mlp.", layer, config_.intermediate_size);
    }
  }

  void head() {
    norm("model.norm.weight", -1, config_.hidden_size);
    if (!config_.tie_word_embeddings) matrix("lm_head.weight", -1, config_.vocab_size, config_.hidden_size);
  }

  // The multi-token prediction module shares embedding and head with the model.
  void prediction_module(int layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    norm(prefix + "enorm.weight", layer, config_.hidden_size);
    norm(prefix + "hnorm.weight", layer, config_.hidden_size);
    matrix(prefix + "eh_proj.weight", layer, config_.hidden_size, 2 * config_.hidden_size);
    block(layer);
    norm(prefix + "shared_head.norm.weight", layer, config_.hidden_size);
  }

 private:
  void latent_attention(const std::string& prefix, int layer) {
    const ModelConfig& c = config_;
    const int heads = c.num_attention_heads;
    if (c.q_lora_rank) {
      matrix(prefix + "q_a_proj.weight", layer, *c.q_lora_rank, c.hidden_size);
    } else {
      matrix(prefix + "q_proj.weight", layer, heads * c.qk_head_dim(), c.hidden_size);
    }
    matrix(prefix + "kv_a_proj_with_mqa.weight", layer, c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size);
    if (c.q_lora_rank) {
      norm(prefix + "q_a_layernorm.weight", layer, *c.q_lora_rank);
      matrix(prefix + "q_b_proj.weight", layer, heads * c.qk_head_dim(), *c.q_lora_rank);
    }
    norm(prefix + "kv_a_layernorm.weight", layer, c.kv_lora_rank);
    matrix(prefix + "kv_b_proj.weight", layer, heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank);
    matrix(prefix + "o_proj.weight", layer, c.hidden_size, heads * c.v_head_dim);
  }

  void grouped_attention(const std::string& prefix, int layer) {
    const int width = config_.attention_head_dim();
    const int query = config_.num_attention_heads * width, key = config_.num_key_value_heads * width;
    matrix(prefix + "q_proj.weight", layer, query, config_.hidden_size);
    matrix(prefix + "k_proj.weight", layer, key, config_.hidden_size);
    matrix(prefix + "v_proj.weight", layer, key, config_.hidden_size);
    if (config_.qkv_bias()) {
      vector(prefix + "q_proj.bias", layer, query, 0);
      vector(prefix + "k_proj.bias", layer, key, 0);
      vector(prefix + "v_proj.bias", layer, key, 0);
    }
    matrix(prefix + "o_proj.weight", layer, config_.hidden_size, query);
  }

  void experts(const std::string& prefix, int layer) {
    matrix(prefix + "gate.weight", layer, config_.n_routed_experts, config_.hidden_size);
    vector(prefix + "gate.e_score_correction_bias", layer, config_.n_routed_experts, 0);
    list_.back().kind = ParameterKind::router_bias;
    for (int expert = 0; expert < config_.n_routed_experts; ++expert) {
      const std::size_t first = list_.size();
      mlp(fmt::format("{}experts.{}.", prefix, expert), layer, config_.moe_intermediate_size);
      for (std::size_t i = first; i < list_.size(); ++i) {
        list_[i].kind = ParameterKind::expert;
        list_[i].expert = expert;
      }
    }
    if (config_.n_shared_experts > 0) mlp(prefix + "shared_experts.", layer, config_.shared_intermediate_size());
  }

  void mlp(const std::string& prefix, int layer, std::int64_t width) {
    matrix(prefix + "gate_proj.weight", layer, width, config_.hidden_size);
    matrix(prefix + "up_proj.weight", layer, width, config_.hidden_size);
    matrix(prefix + "down_proj.weight", layer, config_.hidden_size, width);
  }

  void matrix(const std::string& name, int layer, std::int64_t rows, std::int64_t cols) {
    list_.push_back({.name = name, .rows = rows, .cols = cols, .layer = layer, .std = standard_deviation(name, cols)});
  }
  void norm(const std::string& name, int layer, std::int64_t size) { vector(name, layer, size, 1); }
  void vector(const std::string& name, int layer, std::int64_t size, float mean) {
    list_.push_back({.name = name, .cols = size, .dimensions = 1, .layer = layer, .mean = mean});
  }

  float standard_deviation(const std::string& name, std::int64_t fan_in) const {
    if (start_.scheme == "normal") return static_cast<float>(start_.range);
    if (name.ends_with("embed_tokens.weight") || name.ends_with("mlp.gate.weight")) return 0.02F;
    const double std = 0.5 / std::sqrt(static_cast<double>(fan_in));
    // What is added to the residual stream starts smaller the more layers add to it.
    const bool adds = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    return static_cast<float>(adds ? std / std::sqrt(2.0 * config_.num_hidden_layers) : std);
  }

  const ModelConfig& config_;
  const Initialization& start_;
  std::vector<Parameter> list_;
};

// Does a token's way through the model use this tensor? Of the routed experts, the first num_experts_per_tok stand for
// those chosen.
bool is_active(const ModelConfig& config, const Parameter& parameter) {
  if (parameter.kind == ParameterKind::router_bias) return false;
  if (parameter.kind == ParameterKind::expert) return parameter.expert < config.num_experts_per_tok;
  return parameter.name != "model.embed_tokens.weight" || config.tie_word_embeddings;
}

}  // namespace

std::vector<Parameter> model_parameters(const ModelConfig& config, const Initialization& initialization) {
  return model_parameters(config, initialization, [](int) { return true; });
}

std::vector<Parameter> model_parameters(const ModelConfig& config, const Initialization& initialization,
                                        const std::function<bool(int layer)>& wanted) {
  Lister lister(config, initialization);
  lister.embedding();
  for (int layer = 0; layer < config.num_hidden_layers; ++layer)
    if (wanted(layer)) lister.block(layer);
  lister.head();
  for (int layer = config.num_hidden_layers; layer < config.layers_with_mtp(); ++layer)
    if (wanted(layer)) lister.prediction_module(layer);
  return lister.take();
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const Parameter& parameter : model_parameters(config)) {
    if (parameter.kind != ParameterKind::router_bias) count += parameter.elements();
  }
  return count;
}

std::int64_t active_parameter_count(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const Parameter& parameter : model_parameters(config)) {
    if (is_active(config, parameter)) count += parameter.elements();
  }
  return count;
}

double training_flops_per_token(const ModelConfig& config, std::int64_t tokens) {
  double weights = 0;
  for (const Parameter& parameter : model_parameters(config)) {
    if (parameter.dimensions == 2 && is_active(config, parameter)) weights += static_cast<double>(parameter.elements());
  }
  const double head_width = config.qk_head_dim() + config.value_head_dim();
  const double attention = 6.0 * config.num_attention_heads * head_width * static_cast<double>(tokens);
  return 6.0 * weights + attention * config.layers_with_mtp();
}

double training_flops_per_token(const ModelConfig& config, std::int64_t tokens,
                                const std::function<BackwardShare(const Parameter&)>& share) {
  double products = 0, attention = 0;
  const double head_width = config.qk_head_dim() + config.value_head_dim();
  for (const Parameter& parameter : model_parameters(config)) {
    if (parameter.dimensions != 2 || !is_active(config, parameter)) continue;
    const BackwardShare back = share(parameter);
    products += 2.0 * static_cast<double>(parameter.elements()) * (1 + back.activations + back.weights);
    if (parameter.name.ends_with("o_proj.weight"))  // once a layer
      attention +=
          2.0 * config.num_attention_heads * head_width * static_cast<double>(tokens) * (1 + 2 * back.activations);
  }
  return products + attention;
}

}  // namespace troupe
