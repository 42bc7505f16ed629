// ModelConfig: its ranges, and Hugging Face's config.json. The law: a model that this program would compute otherwise
// than its config.json says is refused, in one sentence that names the key; keys without an effect on the numbers are
// ignored.
#include "kernels/model/config.h"

#include <fmt/format.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace troupe {
namespace {

constexpr int kSizeMax = 1 << 22;  // keeps products of two of them within 64 bits, and heads * head width within 32
constexpr int kHeadsMax = 4096;
constexpr int kHeadDimMax = 65536;

struct Range {
  const char* key;
  int value, lowest, highest;
};

std::string first_out_of_range(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) {
    if (range.value < range.lowest || range.value > range.highest) {
      return fmt::format("{} is {}, must be {}..{}", range.key, range.value, range.lowest, range.highest);
    }
  }
  return "";
}

bool is_positive(double value) { return std::isfinite(value) && value > 0; }

std::string why_invalid_attention(const ModelConfig& c) {
  if (c.attention_bias && c.model_type != "qwen2") {
    return fmt::format("attention_bias is true, but {} is supported without biases only", c.model_type);
  }
  if (c.is_mla()) {
    const int q_lora_rank = c.q_lora_rank.value_or(1);
    const std::string problem = first_out_of_range({{"q_lora_rank", q_lora_rank, 1, kSizeMax},
                                                    {"kv_lora_rank", c.kv_lora_rank, 1, kSizeMax},
                                                    {"qk_nope_head_dim", c.qk_nope_head_dim, 1, kHeadDimMax},
                                                    {"qk_rope_head_dim", c.qk_rope_head_dim, 2, kHeadDimMax},
                                                    {"v_head_dim", c.v_head_dim, 1, kHeadDimMax}});
    if (!problem.empty()) return problem;
    if (c.qk_rope_head_dim % 2 != 0) return fmt::format("qk_rope_head_dim is {}, must be even", c.qk_rope_head_dim);
    return "";
  }
  const std::string problem =
      first_out_of_range({{"num_key_value_heads", c.num_key_value_heads, 1, c.num_attention_heads},
                          {"head_dim", c.head_dim, 0, kHeadDimMax}});
  if (!problem.empty()) return problem;
  if (c.num_attention_heads % c.num_key_value_heads != 0) {
    return fmt::format("num_attention_heads is {}, must be a multiple of num_key_value_heads ({})",
                       c.num_attention_heads, c.num_key_value_heads);
  }
  if (c.head_dim == 0 && c.hidden_size % c.num_attention_heads != 0) {
    return fmt::format("hidden_size is {}, must be a multiple of num_attention_heads ({}) unless head_dim is given",
                       c.hidden_size, c.num_attention_heads);
  }
  if (c.attention_head_dim() % 2 != 0 || c.attention_head_dim() > kHeadDimMax) {
    return fmt::format("head_dim is {}, must be even and at most {}", c.attention_head_dim(), kHeadDimMax);
  }
  return "";
}

std::string why_invalid_experts(const ModelConfig& c) {
  const std::string outer =
      first_out_of_range({{"n_routed_experts", c.n_routed_experts, 0, 65536},
                          {"first_k_dense_replace", c.first_k_dense_replace, 0, c.num_hidden_layers}});
  if (!outer.empty()) return outer;
  if (!(std::isfinite(c.aux_loss_alpha) && c.aux_loss_alpha >= 0)) {
    return fmt::format("aux_loss_alpha is {}, must be 0 or more", c.aux_loss_alpha);
  }
  const bool has_experts = c.is_moe_layer(c.layers_with_mtp() - 1);
  if (!has_experts) return "";
  const std::string inner = first_out_of_range({{"moe_intermediate_size", c.moe_intermediate_size, 1, kSizeMax},
                                                {"n_shared_experts", c.n_shared_experts, 0, 256},
                                                {"n_group", c.n_group, 1, c.n_routed_experts},
                                                {"topk_group", c.topk_group, 1, c.n_group}});
  if (!inner.empty()) return inner;
  if (c.n_routed_experts % c.n_group != 0) {
    return fmt::format("n_routed_experts is {}, must be a multiple of n_group ({})", c.n_routed_experts, c.n_group);
  }
  const int group = c.n_routed_experts / c.n_group;
  if (c.n_group > 1 && group < 2) {
    return fmt::format("n_group is {}, must leave each group 2 experts or more of n_routed_experts ({})", c.n_group,
                       c.n_routed_experts);
  }
  if (c.num_experts_per_tok < 1 || c.num_experts_per_tok > group * c.topk_group) {
    return fmt::format("num_experts_per_tok is {}, must be 1..{} ({})", c.num_experts_per_tok, group * c.topk_group,
                       c.n_group > 1 ? "experts in topk_group groups" : "n_routed_experts");
  }
  if (!is_positive(c.routed_scaling_factor)) {
    return fmt::format("routed_scaling_factor is {}, must be above 0", c.routed_scaling_factor);
  }
  return "";
}

std::string why_invalid_rope(const ModelConfig& c) {
  if (!(is_positive(c.rope_theta) && c.rope_theta > 1)) {
    return fmt::format("rope_theta is {}, must be above 1", c.rope_theta);
  }
  if (!c.rope_scaling) return "";
  const RopeScaling& yarn = *c.rope_scaling;
  if (!(std::isfinite(yarn.factor) && yarn.factor >= 1)) {
    return fmt::format("rope_scaling.factor is {}, must be 1 or more", yarn.factor);
  }
  if (yarn.original_max_position_embeddings < 1) {
    return fmt::format("rope_scaling.original_max_position_embeddings is {}, must be 1 or more",
                       yarn.original_max_position_embeddings);
  }
  if (!is_positive(yarn.beta_slow)) {
    return fmt::format("rope_scaling.beta_slow is {}, must be above 0", yarn.beta_slow);
  }
  if (!(std::isfinite(yarn.beta_fast) && yarn.beta_fast >= yarn.beta_slow)) {
    return fmt::format("rope_scaling.beta_fast is {}, must be beta_slow ({}) or more", yarn.beta_fast, yarn.beta_slow);
  }
  for (const auto& [key, value] :
       {std::pair{"mscale", yarn.mscale}, std::pair{"mscale_all_dim", yarn.mscale_all_dim}}) {
    if (!(std::isfinite(value) && value >= 0))
      return fmt::format("rope_scaling.{} is {}, must be 0 or more", key, value);
  }
  return "";
}

// ---- config.json ----------------------------------------------------------------------------------------------------
using Json = nlohmann::json;

bool is_given(const Json& json, const char* key) { return json.contains(key) && !json.at(key).is_null(); }

int read_int(const Json& json, const char* key) {
  if (!is_given(json, key)) throw Error("{} is missing from the model's configuration", key);
  const Json& value = json.at(key);
  if (!value.is_number_integer()) throw Error("{} is {}, must be an integer", key, value.dump());
  const auto wide = value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<int>::max()
                        ? std::numeric_limits<std::int64_t>::max()
                        : value.get<std::int64_t>();
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max()) {
    throw Error("{} is {}, which is out of range", key, value.dump());
  }
  return static_cast<int>(wide);
}
int read_int(const Json& json, const char* key, int otherwise) {
  return is_given(json, key) ? read_int(json, key) : otherwise;
}

double read_double(const Json& json, const char* key, double otherwise) {
  if (!is_given(json, key)) return otherwise;
  if (!json.at(key).is_number()) throw Error("{} is {}, must be a number", key, json.at(key).dump());
  return json.at(key).get<double>();
}

bool read_bool(const Json& json, const char* key, bool otherwise) {
  if (!is_given(json, key)) return otherwise;
  if (!json.at(key).is_boolean()) throw Error("{} is {}, must be true or false", key, json.at(key).dump());
  return json.at(key).get<bool>();
}

std::string read_string(const Json& json, const char* key, const std::string& otherwise) {
  if (!is_given(json, key)) return otherwise;
  if (!json.at(key).is_string()) throw Error("{} is {}, must be a string", key, json.at(key).dump());
  return json.at(key).get<std::string>();
}

// Token ids may be a list (several end tokens): the first one is written, as Hugging Face does.
int read_token(const Json& json, const char* key, int otherwise) {
  if (!json.contains(key) || !json.at(key).is_array()) return read_int(json, key, otherwise);
  if (json.at(key).empty()) return otherwise;
  return read_int(Json{{key, json.at(key).front()}}, key);
}

void expect(const Json& json, const char* key, const std::string& only) {
  const std::string value = read_string(json, key, only);
  if (value != only) throw Error("{} is {}, only {} is supported", key, value, only);
}

void refuse_unsupported(const Json& json, const ModelConfig& c) {
  expect(json, "hidden_act", "silu");
  if (read_bool(json, "mlp_bias", false)) throw Error("mlp_bias is true, only false is supported");
  if (c.is_mla()) {
    expect(json, "scoring_func", "sigmoid");
    expect(json, "topk_method", "noaux_tc");
    if (const int every = read_int(json, "moe_layer_freq", 1); every != 1) {
      throw Error("moe_layer_freq is {}, only 1 is supported", every);
    }
    if (c.aux_loss_alpha > 0 && !read_bool(json, "seq_aux", true)) {
      throw Error("seq_aux is false, only the sequence-wise balance loss is supported: set aux_loss_alpha to 0");
    }
  }
  // Qwen2: layers from max_window_layers on slide, when use_sliding_window says so.
  if (read_bool(json, "use_sliding_window", false) && is_given(json, "sliding_window") &&
      read_int(json, "max_window_layers", 28) < c.num_hidden_layers) {
    throw Error("use_sliding_window is true, sliding windows are not supported");
  }
  if (is_given(json, "layer_types") && json.at("layer_types").is_array()) {
    for (const Json& type : json.at("layer_types")) {
      if (type != "full_attention") throw Error("layer_types names {}, only full_attention is supported", type.dump());
    }
  }
}

std::optional<RopeScaling> read_rope_scaling(const Json& json, const char* key, int max_position_embeddings) {
  if (!is_given(json, key)) return std::nullopt;
  const Json& scaling = json.at(key);
  if (!scaling.is_object()) throw Error("{} is {}, must be an object or null", key, scaling.dump());
  const std::string type = read_string(scaling, "rope_type", read_string(scaling, "type", "default"));
  if (type == "default") return std::nullopt;
  if (type != "yarn") throw Error("{}.type is {}, only yarn is supported", key, type);
  if (is_given(scaling, "attention_factor")) {
    throw Error("{}.attention_factor is given, which is not supported: use mscale and mscale_all_dim", key);
  }
  if (!read_bool(scaling, "truncate", true)) throw Error("{}.truncate is false, only true is supported", key);
  if (!is_given(scaling, "factor")) throw Error("{}.factor is missing from the model's configuration", key);
  RopeScaling yarn;
  yarn.factor = read_double(scaling, "factor", 1);
  yarn.original_max_position_embeddings =
      read_int(scaling, "original_max_position_embeddings", max_position_embeddings);
  yarn.beta_fast = read_double(scaling, "beta_fast", 32);
  yarn.beta_slow = read_double(scaling, "beta_slow", 1);
  yarn.mscale = read_double(scaling, "mscale", 1);
  yarn.mscale_all_dim = read_double(scaling, "mscale_all_dim", 0);
  return yarn;
}

void read_mla_and_experts(const Json& json, ModelConfig& c) {
  c.num_key_value_heads = c.num_attention_heads;  // a latent serves all heads
  c.rope_interleave = read_bool(json, "rope_interleave", true);
  if (is_given(json, "q_lora_rank")) c.q_lora_rank = read_int(json, "q_lora_rank");
  c.kv_lora_rank = read_int(json, "kv_lora_rank");
  c.qk_nope_head_dim = read_int(json, "qk_nope_head_dim");
  c.qk_rope_head_dim = read_int(json, "qk_rope_head_dim");
  c.v_head_dim = read_int(json, "v_head_dim");
  c.n_routed_experts = read_int(json, "n_routed_experts", 0);  // null or missing: a dense model
  c.first_k_dense_replace = read_int(json, "first_k_dense_replace", 0);
  c.num_nextn_predict_layers = read_int(json, "num_nextn_predict_layers", 0);
  if (c.n_routed_experts != 0) {
    c.moe_intermediate_size = read_int(json, "moe_intermediate_size");
    c.num_experts_per_tok = read_int(json, "num_experts_per_tok");
  }
  const bool no_shared = json.contains("n_shared_experts") && json.at("n_shared_experts").is_null();
  c.n_shared_experts = no_shared ? 0 : read_int(json, "n_shared_experts", 1);
  c.n_group = read_int(json, "n_group", 1);
  c.topk_group = read_int(json, "topk_group", 1);
  c.norm_topk_prob = read_bool(json, "norm_topk_prob", true);
  c.routed_scaling_factor = read_double(json, "routed_scaling_factor", 1);
  c.aux_loss_alpha = read_double(json, "aux_loss_alpha", 0);
}

void write_mla_and_experts(const ModelConfig& c, Json& json) {
  json["num_key_value_heads"] = c.num_attention_heads;
  json["rope_interleave"] = c.rope_interleave;
  json["q_lora_rank"] = c.q_lora_rank ? Json(*c.q_lora_rank) : Json(nullptr);
  json["kv_lora_rank"] = c.kv_lora_rank;
  json["qk_nope_head_dim"] = c.qk_nope_head_dim;
  json["qk_rope_head_dim"] = c.qk_rope_head_dim;
  json["v_head_dim"] = c.v_head_dim;
  json["moe_intermediate_size"] = c.moe_intermediate_size;
  json["n_routed_experts"] = c.n_routed_experts;
  json["n_shared_experts"] = c.n_shared_experts;
  json["num_experts_per_tok"] = c.num_experts_per_tok;
  json["n_group"] = c.n_group;
  json["topk_group"] = c.topk_group;
  json["first_k_dense_replace"] = c.first_k_dense_replace;
  json["norm_topk_prob"] = c.norm_topk_prob;
  json["routed_scaling_factor"] = c.routed_scaling_factor;
  json["aux_loss_alpha"] = c.aux_loss_alpha;
  json["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  json["scoring_func"] = "sigmoid";
  json["topk_method"] = "noaux_tc";
  json["moe_layer_freq"] = 1;
  json["seq_aux"] = true;
}

}  // namespace

std::string why_invalid(const ModelConfig& c) {
  if (c.model_type != "deepseek_v3" && c.model_type != "qwen2" && c.model_type != "llama") {
    return fmt::format("model_type is {}, must be deepseek_v3, qwen2 or llama", c.model_type);
  }
  const std::string size = first_out_of_range({{"vocab_size", c.vocab_size, 1, kSizeMax},
                                               {"hidden_size", c.hidden_size, 1, kSizeMax},
                                               {"intermediate_size", c.intermediate_size, 1, kSizeMax},
                                               {"num_hidden_layers", c.num_hidden_layers, 1, 10000},
                                               {"num_attention_heads", c.num_attention_heads, 1, kHeadsMax},
                                               {"max_position_embeddings", c.max_position_embeddings, 1, 1 << 30},
                                               {"bos_token_id", c.bos_token_id, 0, c.vocab_size - 1},
                                               {"eos_token_id", c.eos_token_id, 0, c.vocab_size - 1},
                                               {"num_nextn_predict_layers", c.num_nextn_predict_layers, 0, 1}});
  if (!size.empty()) return size;
  if (c.has_mtp() && !c.is_mla()) {
    return fmt::format("num_nextn_predict_layers is 1, must be 0 with model_type {}", c.model_type);
  }
  if (!is_positive(c.rms_norm_eps)) return fmt::format("rms_norm_eps is {}, must be above 0", c.rms_norm_eps);
  if (const std::string problem = why_invalid_rope(c); !problem.empty()) return problem;
  if (const std::string problem = why_invalid_attention(c); !problem.empty()) return problem;
  return c.is_mla() ? why_invalid_experts(c) : "";
}

ModelConfig model_config_from_json(const Json& json) {
  if (!json.is_object()) throw Error("the model's configuration must be a json object");
  ModelConfig c;
  c.model_type = read_string(json, "model_type", "");
  if (c.model_type.empty()) throw Error("model_type is missing from the model's configuration");
  c.vocab_size = read_int(json, "vocab_size");
  c.hidden_size = read_int(json, "hidden_size");
  c.intermediate_size = read_int(json, "intermediate_size");
  c.num_hidden_layers = read_int(json, "num_hidden_layers");
  c.num_attention_heads = read_int(json, "num_attention_heads");
  c.attention_bias = read_bool(json, "attention_bias", false);
  c.tie_word_embeddings = read_bool(json, "tie_word_embeddings", false);
  c.rms_norm_eps = read_double(json, "rms_norm_eps", 1e-6);
  const int positions = c.model_type == "qwen2" ? 32768 : c.model_type == "llama" ? 2048 : 4096;
  c.max_position_embeddings = read_int(json, "max_position_embeddings", positions);
  // Newer files keep theta and scaling together.
  const bool together = is_given(json, "rope_parameters") && json.at("rope_parameters").is_object();
  c.rope_theta = read_double(together ? json.at("rope_parameters") : json, "rope_theta", 10000);
  c.rope_scaling = read_rope_scaling(json, together ? "rope_parameters" : "rope_scaling", c.max_position_embeddings);
  c.bos_token_id = read_token(json, "bos_token_id", 0);
  c.eos_token_id = read_token(json, "eos_token_id", 1);
  if (c.is_mla()) {
    read_mla_and_experts(json, c);
  } else {
    c.num_key_value_heads = read_int(json, "num_key_value_heads", c.num_attention_heads);
    c.head_dim = read_int(json, "head_dim", 0);
    c.num_nextn_predict_layers = read_int(json, "num_nextn_predict_layers", 0);
  }
  if (const std::string problem = why_invalid(c); !problem.empty()) throw Error("{}", problem);
  refuse_unsupported(json, c);
  return c;
}

Json model_config_to_json(const ModelConfig& c) {
  const bool qwen2 = c.model_type == "qwen2";
  Json json;
  json["architectures"] = {c.is_mla() ? "DeepseekV3ForCausalLM" : qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM"};
  json["model_type"] = c.model_type;
  json["torch_dtype"] = "float32";
  json["hidden_act"] = "silu";
  json["vocab_size"] = c.vocab_size;
  json["hidden_size"] = c.hidden_size;
  json["intermediate_size"] = c.intermediate_size;
  json["num_hidden_layers"] = c.num_hidden_layers;
  json["num_attention_heads"] = c.num_attention_heads;
  json["tie_word_embeddings"] = c.tie_word_embeddings;
  json["rms_norm_eps"] = c.rms_norm_eps;
  json["max_position_embeddings"] = c.max_position_embeddings;
  json["bos_token_id"] = c.bos_token_id;
  json["eos_token_id"] = c.eos_token_id;
  json["attention_bias"] = c.attention_bias;
  json["rope_theta"] = c.rope_theta;
  json["rope_scaling"] = nullptr;
  if (c.rope_scaling) {
    const RopeScaling& yarn = *c.rope_scaling;
    json["rope_scaling"] = {{"type", "yarn"},
                            {"factor", yarn.factor},
                            {"original_max_position_embeddings", yarn.original_max_position_embeddings},
                            {"beta_fast", yarn.beta_fast},
                            {"beta_slow", yarn.beta_slow},
                            {"mscale", yarn.mscale},
                            {"mscale_all_dim", yarn.mscale_all_dim}};
  }
  if (c.is_mla()) {
    write_mla_and_experts(c, json);
  } else {
    json["num_key_value_heads"] = c.num_key_value_heads;
    if (c.head_dim > 0) json["head_dim"] = c.head_dim;
    if (qwen2) json["use_sliding_window"] = false;
  }
  return json;
}

}  // namespace troupe
