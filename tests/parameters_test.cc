// What a model is made of: config.json in and out, ranges, and the list of tensors against Hugging Face's.
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/safetensors.h"
#include "kernels/base/error.h"
#include "kernels/model/config.h"
#include "kernels/model/parameters.h"

using namespace troupe;
using Json = nlohmann::json;

namespace {

const std::vector<std::string> kFixtures = {"o1_moe_basic",   "o2_v3_groups",  "o3_mtp_aux_tied",
                                            "o4_yarn_nonorm", "o5_qwen2_tied", "o6_llama_untied"};

std::string fixture(const std::string& name) { return std::string(TROUPE_SOURCE_DIR) + "/tests/fixtures/" + name; }

Json fixture_config(const std::string& name) { return Json::parse(std::ifstream(fixture(name) + "/config.json")); }

ModelConfig deepseek_v3() {
  ModelConfig c;
  c.vocab_size = 129280;
  c.hidden_size = 7168;
  c.intermediate_size = 18432;
  c.num_hidden_layers = 61;
  c.num_attention_heads = c.num_key_value_heads = 128;
  c.q_lora_rank = 1536;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  c.moe_intermediate_size = 2048;
  c.n_routed_experts = 256;
  c.num_experts_per_tok = 8;
  c.n_group = 8;
  c.topk_group = 4;
  c.first_k_dense_replace = 3;
  c.routed_scaling_factor = 2.5;
  c.rope_scaling = RopeScaling{.factor = 40, .mscale_all_dim = 1};
  c.max_position_embeddings = 163840;
  return c;
}

const Parameter& find(const std::vector<Parameter>& list, const std::string& name) {
  for (const Parameter& parameter : list) {
    if (parameter.name == name) return parameter;
  }
  FAIL("no parameter " << name);
  return list.front();
}

std::string refusal(const Json& json) {
  try {
    model_config_from_json(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a model's parameters are the tensors of every fixture, by name and shape", "[parameters]") {
  for (const std::string& name : kFixtures) {
    INFO(name);
    const SafetensorsReader file(fixture(name));
    const auto list = model_parameters(model_config_from_json(fixture_config(name)));
    for (const Parameter& parameter : list) {
      INFO(parameter.name);
      REQUIRE(file.has(parameter.name));
      const auto shape = parameter.dimensions == 1 ? std::vector<std::int64_t>{parameter.cols}
                                                   : std::vector<std::int64_t>{parameter.rows, parameter.cols};
      CHECK(file.entries().at(parameter.name).shape == shape);
    }
    CHECK(list.size() == file.entries().size());
  }
}

TEST_CASE("tensors that one product reads together are neighbours", "[parameters]") {
  const std::vector<std::vector<std::string>> together = {{"q_a_proj.weight", "kv_a_proj_with_mqa.weight"},
                                                          {"q_proj.weight", "k_proj.weight", "v_proj.weight"},
                                                          {"q_proj.bias", "k_proj.bias", "v_proj.bias"},
                                                          {"gate_proj.weight", "up_proj.weight"}};
  for (const std::string& name : kFixtures) {
    const ModelConfig config = model_config_from_json(fixture_config(name));
    const auto list = model_parameters(config);
    for (std::size_t i = 0; i < list.size(); ++i) {
      INFO(name << " " << list[i].name);
      for (const auto& group : together) {
        if (config.is_mla() && group[0] == "q_proj.weight") continue;
        if (!list[i].name.ends_with("." + group[0])) continue;
        const std::string prefix = list[i].name.substr(0, list[i].name.size() - group[0].size());
        for (std::size_t k = 1; k < group.size(); ++k) CHECK(list.at(i + k).name == prefix + group[k]);
      }
      if (config.is_mla() && list[i].name.ends_with(".q_proj.weight")) {
        CHECK(list.at(i + 1).name.ends_with(".kv_a_proj_with_mqa.weight"));
      }
    }
  }
}

TEST_CASE("every routed expert's tensors know their layer and expert, and nothing else does", "[parameters]") {
  const auto list = model_parameters(model_config_from_json(fixture_config("o3_mtp_aux_tied")));
  std::set<std::string> names;
  for (const Parameter& parameter : list) {
    INFO(parameter.name);
    CHECK(names.insert(parameter.name).second);
    const bool is_expert = parameter.name.find(".experts.") != std::string::npos;
    const bool is_bias = parameter.name.ends_with("e_score_correction_bias");
    CHECK((parameter.kind == ParameterKind::expert) == is_expert);
    CHECK((parameter.kind == ParameterKind::router_bias) == is_bias);
    CHECK((parameter.expert >= 0) == is_expert);
    if (is_expert)
      CHECK(parameter.name.find(fmt::format("layers.{}.mlp.experts.{}.", parameter.layer, parameter.expert)) !=
            std::string::npos);
    if (parameter.layer < 0) CHECK(parameter.name.find(".layers.") == std::string::npos);
  }
  CHECK(find(list, "model.layers.2.eh_proj.weight").layer == 2);  // the MTP module comes after two layers
}

TEST_CASE("DeepSeek-V3 has 671.026 billion parameters, 36.62 active, 37.55 with the embedding", "[parameters]") {
  ModelConfig config = deepseek_v3();
  REQUIRE(why_invalid(config).empty());
  const double embedding = 129280.0 * 7168;
  CHECK(static_cast<double>(parameter_count(config)) == Approx(671.026e9).margin(0.5e6));
  // What a token multiplies with: the head, but not the embedding, which is only looked up.
  CHECK(static_cast<double>(active_parameter_count(config)) == Approx(36.62e9).margin(0.01e9));
  CHECK(static_cast<double>(active_parameter_count(config)) + embedding == Approx(37.55e9).margin(0.01e9));
  config.num_nextn_predict_layers = 1;
  CHECK(static_cast<double>(parameter_count(config)) == Approx(671.026e9 + 11.61e9).margin(0.01e9));
}

TEST_CASE("a token of DeepSeek-V3 at 4096 costs the published 250.4 GFLOP when attention is counted causally",
          "[parameters]") {
  const ModelConfig config = deepseek_v3();
  const double attention = 61.0 * 6 * 128 * (192 + 128) * 4096;
  CHECK(training_flops_per_token(config, 4096) - attention / 2 == Approx(250.4e9).epsilon(0.001));
}

TEST_CASE("a tied head counts as active once, an untied one beside the embedding", "[parameters]") {
  ModelConfig config = model_config_from_json(fixture_config("o5_qwen2_tied"));
  const std::int64_t embedding = std::int64_t{128} * 48;
  CHECK(active_parameter_count(config) == parameter_count(config));
  config.tie_word_embeddings = false;
  CHECK(parameter_count(config) - active_parameter_count(config) == embedding);
}

TEST_CASE("scaled initialization follows fan-in, normal one number", "[parameters]") {
  const ModelConfig config = model_config_from_json(fixture_config("o2_v3_groups"));  // hidden 48, 3 layers, q_lora 24
  const auto list = model_parameters(config);
  const auto std_of = [&](const std::string& name) { return find(list, name).std; };
  CHECK(std_of("model.embed_tokens.weight") == 0.02F);
  CHECK(std_of("model.layers.1.mlp.gate.weight") == 0.02F);
  CHECK(std_of("lm_head.weight") == Approx(0.5 / std::sqrt(48.0)));
  CHECK(std_of("model.layers.0.self_attn.q_b_proj.weight") == Approx(0.5 / std::sqrt(24.0)));
  CHECK(std_of("model.layers.0.mlp.gate_proj.weight") == Approx(0.5 / std::sqrt(48.0)));
  CHECK(std_of("model.layers.0.self_attn.o_proj.weight") == Approx(0.5 / std::sqrt(40.0) / std::sqrt(6.0)));
  CHECK(std_of("model.layers.2.mlp.experts.3.down_proj.weight") == Approx(0.5 / std::sqrt(16.0) / std::sqrt(6.0)));
  for (const Parameter& parameter : model_parameters(config, {.scheme = "normal", .range = 0.006})) {
    INFO(parameter.name);
    const bool is_norm = parameter.name.find("norm.weight") != std::string::npos;
    CHECK(parameter.mean == (is_norm ? 1.0F : 0.0F));
    CHECK(parameter.std == (parameter.dimensions == 2 ? 0.006F : 0.0F));
  }
}

TEST_CASE("config.json survives being read and written", "[config]") {
  for (const std::string& name : kFixtures) {
    INFO(name);
    const Json told = fixture_config(name);
    const ModelConfig config = model_config_from_json(told);
    const Json written = model_config_to_json(config);
    CHECK(model_config_from_json(written) == config);
    for (const auto& [key, value] : told.items()) {
      if (!written.contains(key)) continue;
      INFO(key);
      CHECK(written[key] == value);
    }
  }
}

TEST_CASE("yarn is read from rope_scaling and from rope_parameters alike", "[config]") {
  Json json = fixture_config("o4_yarn_nonorm");
  const ModelConfig old_layout = model_config_from_json(json);
  REQUIRE(old_layout.rope_scaling);
  CHECK(old_layout.rope_scaling->factor == 4);
  CHECK(old_layout.rope_scaling->beta_fast == 4);
  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = json["rope_theta"];
  json.erase("rope_scaling");
  json.erase("rope_theta");
  CHECK(model_config_from_json(json) == old_layout);
}

TEST_CASE("a config.json that asks for what is not computed here is refused by key", "[config]") {
  struct Case {
    const char* fixture;
    const char* key;
    Json value;
  };
  const std::vector<Case> cases = {{"o1_moe_basic", "hidden_act", "gelu"},
                                   {"o1_moe_basic", "scoring_func", "softmax"},
                                   {"o1_moe_basic", "topk_method", "group_limited_greedy"},
                                   {"o1_moe_basic", "moe_layer_freq", 2},
                                   {"o1_moe_basic", "attention_bias", true},
                                   {"o3_mtp_aux_tied", "seq_aux", false},
                                   {"o6_llama_untied", "attention_bias", true},
                                   {"o6_llama_untied", "mlp_bias", true},
                                   {"o5_qwen2_tied", "layer_types", {"full_attention", "sliding_attention"}},
                                   {"o6_llama_untied", "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}},
                                   {"o6_llama_untied", "model_type", "mixtral"},
                                   {"o6_llama_untied", "model_type", nullptr},
                                   {"o1_moe_basic", "hidden_size", "32"},
                                   {"o1_moe_basic", "hidden_size", nullptr},
                                   {"o1_moe_basic", "vocab_size", 1e3},
                                   {"o1_moe_basic", "vocab_size", 5000000000},
                                   {"o1_moe_basic", "kv_lora_rank", nullptr},
                                   {"o1_moe_basic", "norm_topk_prob", 1},
                                   {"o1_moe_basic", "rms_norm_eps", "tiny"},
                                   {"o6_llama_untied", "num_nextn_predict_layers", 1}};
  for (const Case& one : cases) {
    Json json = fixture_config(one.fixture);
    json[one.key] = one.value;
    INFO(one.key << " = " << one.value.dump());
    CHECK_THAT(refusal(json), Catch::Contains(one.key));
  }
}

TEST_CASE("a sliding window is refused only when a layer would use it", "[config]") {
  Json json = fixture_config("o5_qwen2_tied");  // two layers
  json["sliding_window"] = 64;
  CHECK(refusal(json).empty());
  json["use_sliding_window"] = true;
  json["max_window_layers"] = 2;
  CHECK(refusal(json).empty());
  json["max_window_layers"] = 1;
  CHECK_THAT(refusal(json), Catch::Contains("use_sliding_window"));
}

TEST_CASE("an impossible model is refused with the key and its range", "[config]") {
  struct Case {
    const char* key;
    std::function<void(ModelConfig&)> spoil;
  };
  const std::vector<Case> cases = {
      {"model_type", [](ModelConfig& c) { c.model_type = "gpt2"; }},
      {"vocab_size", [](ModelConfig& c) { c.vocab_size = 0; }},
      {"hidden_size", [](ModelConfig& c) { c.hidden_size = -1; }},
      {"intermediate_size", [](ModelConfig& c) { c.intermediate_size = 0; }},
      {"num_hidden_layers", [](ModelConfig& c) { c.num_hidden_layers = 0; }},
      {"num_attention_heads", [](ModelConfig& c) { c.num_attention_heads = 0; }},
      {"max_position_embeddings", [](ModelConfig& c) { c.max_position_embeddings = 0; }},
      {"eos_token_id", [](ModelConfig& c) { c.eos_token_id = c.vocab_size; }},
      {"bos_token_id", [](ModelConfig& c) { c.bos_token_id = -1; }},
      {"rms_norm_eps", [](ModelConfig& c) { c.rms_norm_eps = 0; }},
      {"rope_theta", [](ModelConfig& c) { c.rope_theta = std::nan(""); }},
      {"rope_scaling.factor", [](ModelConfig& c) { c.rope_scaling = RopeScaling{.factor = 0.5}; }},
      {"rope_scaling.beta_fast", [](ModelConfig& c) { c.rope_scaling = RopeScaling{.beta_fast = 0.5}; }},
      {"q_lora_rank", [](ModelConfig& c) { c.q_lora_rank = 0; }},
      {"kv_lora_rank", [](ModelConfig& c) { c.kv_lora_rank = 0; }},
      {"qk_nope_head_dim", [](ModelConfig& c) { c.qk_nope_head_dim = 0; }},
      {"qk_rope_head_dim", [](ModelConfig& c) { c.qk_rope_head_dim = 15; }},
      {"v_head_dim", [](ModelConfig& c) { c.v_head_dim = 0; }},
      {"attention_bias", [](ModelConfig& c) { c.attention_bias = true; }},
      {"moe_intermediate_size", [](ModelConfig& c) { c.moe_intermediate_size = 0; }},
      {"n_routed_experts", [](ModelConfig& c) { c.n_routed_experts = -1; }},
      {"n_shared_experts", [](ModelConfig& c) { c.n_shared_experts = -1; }},
      {"n_group", [](ModelConfig& c) { c.n_group = 3; }},
      {"n_group", [](ModelConfig& c) { c.n_group = 8; }},
      {"topk_group", [](ModelConfig& c) { c.topk_group = 2; }},
      {"num_experts_per_tok", [](ModelConfig& c) { c.num_experts_per_tok = 9; }},
      {"num_experts_per_tok", [](ModelConfig& c) { c.n_group = 4, c.topk_group = 1, c.num_experts_per_tok = 3; }},
      {"first_k_dense_replace", [](ModelConfig& c) { c.first_k_dense_replace = c.num_hidden_layers + 1; }},
      {"routed_scaling_factor", [](ModelConfig& c) { c.routed_scaling_factor = 0; }},
      {"aux_loss_alpha", [](ModelConfig& c) { c.aux_loss_alpha = -1; }},
      {"num_nextn_predict_layers", [](ModelConfig& c) { c.num_nextn_predict_layers = 2; }},
      {"num_nextn_predict_layers", [](ModelConfig& c) { c.model_type = "llama", c.num_nextn_predict_layers = 1; }},
      {"num_key_value_heads", [](ModelConfig& c) { c.model_type = "llama", c.num_key_value_heads = 3; }},
      {"num_key_value_heads", [](ModelConfig& c) { c.model_type = "qwen2", c.num_key_value_heads = 0; }},
      {"num_attention_heads", [](ModelConfig& c) { c.model_type = "llama", c.hidden_size = 130; }},
      {"head_dim", [](ModelConfig& c) { c.model_type = "llama", c.head_dim = 7; }}};
  CHECK(why_invalid(ModelConfig{}).empty());
  for (const Case& one : cases) {
    ModelConfig config;
    one.spoil(config);
    INFO(one.key);
    CHECK_THAT(why_invalid(config), Catch::Contains(one.key));
  }
}

TEST_CASE("a model without experts needs no sensible expert settings", "[config]") {
  ModelConfig config;
  config.first_k_dense_replace = config.num_hidden_layers;
  config.num_experts_per_tok = 99;
  CHECK(why_invalid(config).empty());
}
