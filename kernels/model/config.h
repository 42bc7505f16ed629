// ModelConfig: what the model is, in Hugging Face's config.json keys. Plain value; checked once by validate().
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace troupe {

struct RopeScaling {  // YaRN
  double factor = 1;
  int original_max_position_embeddings = 4096;
  double beta_fast = 32, beta_slow = 1;
  double mscale = 1, mscale_all_dim = 0;
  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

struct ModelConfig {
  std::string model_type = "deepseek_v3";  // deepseek_v3, qwen2, llama
  int vocab_size = 256;
  int hidden_size = 128;
  int intermediate_size = 384;
  int num_hidden_layers = 4;
  int num_attention_heads = 4;
  int num_key_value_heads = 4;  // qwen2, llama
  int head_dim = 0;             // qwen2, llama; 0: hidden_size / num_attention_heads
  bool attention_bias = false;  // q, k, v biases (qwen2: always true)
  bool tie_word_embeddings = false;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  bool rope_interleave = true;  // deepseek_v3: pairs (2i, 2i+1); qwen2, llama always (i, i + d/2)
  std::optional<RopeScaling> rope_scaling;
  int max_position_embeddings = 4096;
  int bos_token_id = 0, eos_token_id = 1;
  // Multi-head latent attention.
  std::optional<int> q_lora_rank;
  int kv_lora_rank = 48, qk_nope_head_dim = 32, qk_rope_head_dim = 16, v_head_dim = 32;
  // Mixture of experts.
  int moe_intermediate_size = 96;
  int n_routed_experts = 8, n_shared_experts = 1, num_experts_per_tok = 2;
  int n_group = 1, topk_group = 1;
  int first_k_dense_replace = 1;  // this many dense layers come first; num_hidden_layers: no experts at all
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
  double aux_loss_alpha = 0;         // sequence-wise balance loss
  int num_nextn_predict_layers = 0;  // multi-token prediction modules: 0 or 1

  bool is_mla() const { return model_type == "deepseek_v3"; }
  bool is_moe_layer(int layer) const { return is_mla() && n_routed_experts > 0 && layer >= first_k_dense_replace; }
  bool has_mtp() const { return num_nextn_predict_layers > 0; }
  int layers_with_mtp() const { return num_hidden_layers + num_nextn_predict_layers; }
  // Widths that follow.
  int qk_head_dim() const { return is_mla() ? qk_nope_head_dim + qk_rope_head_dim : attention_head_dim(); }
  int attention_head_dim() const { return head_dim > 0 ? head_dim : hidden_size / num_attention_heads; }
  int value_head_dim() const { return is_mla() ? v_head_dim : attention_head_dim(); }
  int rope_dim() const { return is_mla() ? qk_rope_head_dim : attention_head_dim(); }
  int shared_intermediate_size() const { return n_shared_experts * moe_intermediate_size; }
  bool qkv_bias() const { return !is_mla() && (attention_bias || model_type == "qwen2"); }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// The first reason why the model is impossible ("num_experts_per_tok is 9, must be 1..8 (n_routed_experts)"), or "".
std::string why_invalid(const ModelConfig& config);

// config.json of Hugging Face. Throws Error naming the key. Unknown keys are ignored, unsupported values refused.
ModelConfig model_config_from_json(const nlohmann::json& json);
nlohmann::json model_config_to_json(const ModelConfig& config);

}  // namespace troupe
