// Which tensors learn, as a rule: by name, by layer, and chosen by what the tokens choose.
#include "actors/rules/trainable.h"

#include <set>

#include "actors/rules/placement.h"
#include "actors/rules/state_arrays.h"
#include "actors/stage_memory.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

Config sparse() {
  Config config;
  ModelConfig& m = config.model;
  m.model_type = "deepseek_v3";
  m.vocab_size = 16;
  m.hidden_size = m.intermediate_size = m.moe_intermediate_size = m.kv_lora_rank = 8;
  m.num_hidden_layers = 3;
  m.first_k_dense_replace = 1;
  m.num_attention_heads = m.num_key_value_heads = 2;
  m.qk_nope_head_dim = m.v_head_dim = m.qk_rope_head_dim = 4;
  m.n_routed_experts = 4;
  m.num_experts_per_tok = 2;
  m.num_nextn_predict_layers = 1;
  m.tie_word_embeddings = true;
  config.kind = "grpo";
  config.grpo.beta = 0.1;  // with a reference policy
  return config;
}

Config with_experts(const std::vector<std::string>& names) {
  Config config = sparse();
  config.train.trainable = "experts";
  config.train.experts = names;
  return config;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("the named experts learn, and of everything else there are only the weights", "[trainable]") {
  const Config config = with_experts({"1.3", "3.0"});
  std::set<std::string> learn;
  for (const Parameter& p : model_parameters(config.model)) {
    CHECK(has_array(config, p, 0));
    for (int kind = 1; kind < kStateArrays; ++kind) CHECK(has_array(config, p, kind) == is_trainable(config, p));
    if (is_trainable(config, p)) learn.insert(p.name);
  }
  std::set<std::string> expected;
  for (const std::string of : {"1.mlp.experts.3", "3.mlp.experts.0"})
    for (const std::string matrix : {"gate_proj", "up_proj", "down_proj"})
      expected.insert("model.layers." + of + "." + matrix + ".weight");
  CHECK(learn == expected);
  CHECK(trained_parameter_count(config) == 2 * 3 * 8 * 8);
  CHECK(config.bias_rate() == 0);
  CHECK(shared_uses(config, stage_shapes(config).back()).empty());
  CHECK(shared_uses(sparse(), stage_shapes(sparse()).back()).size() == 3);
}

TEST_CASE("with train.trainable = \"all\" every tensor learns, and gradients go back to the embedding", "[trainable]") {
  const Config config = sparse();
  for (const Parameter& p : model_parameters(config.model)) CHECK(is_trainable(config, p));
  CHECK(lowest_trained_layer(config) == -1);
  CHECK(passes_gradient(config, 0));
  CHECK(flops_per_trained_token(config) == training_flops_per_token(config.model, config.train.sequence_length));
}

TEST_CASE("a frozen tensor costs no product of its weights, and one below the lowest that learns none back",
          "[trainable]") {
  const Config config = sparse();
  const auto flops = [&](BackwardShare share) {
    return training_flops_per_token(config.model, config.train.sequence_length,
                                    [&](const Parameter&) { return share; });
  };
  const double full = training_flops_per_token(config.model, config.train.sequence_length);
  CHECK(flops({1, 1}) == Approx(full));
  CHECK(flops({0, 0}) == Approx(full / 3));
  const double upper = flops_per_trained_token(with_experts({"3.0"})),
               lower = flops_per_trained_token(with_experts({"1.0"}));
  CHECK(full / 3 < upper);
  CHECK(upper < lower);
  CHECK(lower < full * 2 / 3);
  // One expert more: a product of its three matrices, for the share of the tokens that it sees.
  const ModelConfig& m = config.model;
  const double more = 2.0 * 3 * m.hidden_size * m.moe_intermediate_size * m.num_experts_per_tok / m.n_routed_experts;
  CHECK(flops_per_trained_token(with_experts({"3.0", "3.1"})) - upper == Approx(more));
}

TEST_CASE("gradients go back to the lowest layer that learns and no further", "[trainable]") {
  const Config config = with_experts({"3.1", "2.0"});
  CHECK(lowest_trained_layer(config) == 2);
  CHECK_FALSE(goes_back(config, 1));
  CHECK(goes_back(config, 2));
  CHECK_FALSE(passes_gradient(config, 2));
  CHECK(passes_gradient(config, 3));
  CHECK(lowest_trained_layer(with_experts({"3.1"})) == 3);  // multi-token prediction alone
}

TEST_CASE("until the experts are chosen every one counts, so that a plan is large enough", "[trainable]") {
  Config config = with_experts({});
  config.train.experts_threshold = 0.5;
  CHECK(config.chooses_experts());
  for (const Parameter& p : model_parameters(config.model))
    CHECK(is_trainable(config, p) == (p.kind == ParameterKind::expert));
  CHECK(lowest_trained_layer(config) == 1);
  config.train.experts = {"2.2"};
  CHECK_FALSE(config.chooses_experts());
  CHECK(lowest_trained_layer(config) == 2);
}

TEST_CASE("an expert's name is a layer and a number, written one way", "[trainable]") {
  CHECK(expert_of("12.7") == std::pair(12, 7));
  CHECK(expert_of(expert_name(0, 255)) == std::pair(0, 255));
  for (const std::string name : {"", "1", "1.", ".1", "1.2.3", "01.2", "1.02", "1,2", " 1.2", "1.2 ", "one.2"}) {
    INFO(name);
    CHECK_FALSE(expert_of(name));
  }
}

TEST_CASE("the fewest experts that reach the threshold are chosen, the first of equals", "[trainable]") {
  const std::vector<ExpertCounts> counts{{1, {10, 40, 30, 20}}, {2, {5, 5, 5, 5}}, {4, {0, 7, 0, 0}}};
  CHECK(choose_experts(counts, 0.4) == Names{"1.1", "2.0", "2.1", "4.1"});
  CHECK(choose_experts(counts, 0.41) == Names{"1.1", "1.2", "2.0", "2.1", "4.1"});
  CHECK(choose_experts(counts, 0.7) == Names{"1.1", "1.2", "2.0", "2.1", "2.2", "4.1"});
  CHECK(choose_experts(counts, 1) == Names{"1.0", "1.1", "1.2", "1.3", "2.0", "2.1", "2.2", "2.3", "4.1"});
  CHECK(choose_experts({{1, {0, 0}}}, 0.5).empty());
}
