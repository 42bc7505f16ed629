// An FP8 run's ops as its devices get them: the flag of the configuration reaches every product that it should.
#include <unistd.h>

#include <filesystem>

#include "actors/rules/placement.h"
#include "kernels/grouped_product.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/simulation/sim_world.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

// A stage and a shard, each on a node of its own; multi-token prediction too.
Config stage_and_shard(const std::string& dtype) {
  Config config;
  ModelConfig& m = config.model;
  m.vocab_size = 16;
  m.hidden_size = m.intermediate_size = m.moe_intermediate_size = 8;
  m.num_hidden_layers = 2;
  m.num_attention_heads = m.num_key_value_heads = 2;
  m.kv_lora_rank = 8;
  m.qk_nope_head_dim = m.v_head_dim = m.qk_rope_head_dim = 4;
  m.n_routed_experts = 4;
  m.num_nextn_predict_layers = 1;
  config.train.dtype = dtype;
  config.train.steps = 1;
  config.train.batch_sequences = config.train.microbatches = 2;
  config.train.sequence_length = 8;
  config.data.kind = "none";
  config.evaluate.exact_match_problems = 0;
  config.layout.nodes = 2;
  config.device.threads = 1;
  return config;
}

struct Counted {
  int scaled = 0, plain = 0;
  int quantizing = 0;  // of the scaled ones, those that make codes of a weight
};

// Products of a step, of the stage and of the shard.
std::map<Role, Counted> products_of(const Config& config) {
  const std::string folder = fmt::format("/dev/shm/troupe-fp8-test-{}", ::getpid());
  std::filesystem::create_directories(folder + "/checkpoints");
  SimWorldOptions options;
  options.run_folder = folder;
  options.corpus = make_sim_corpus(config);
  options.devices.resize(2);
  std::map<Role, Counted> counted;
  for (const auto& [owner, node] : place_owners(config))
    options.devices[node].before = [&own = counted[owner.role]](const SegmentKey& key, const Op& op) {
      if (key.segment_class == SegmentClass::evaluate) return;
      const auto count = [&](const Product& product) {
        ++(product.a_scaling ? own.scaled : own.plain);
        own.quantizing += product.a_scaling && !product.transpose_a && !product.b_scales ? 1 : 0;
      };
      if (const auto* product = std::get_if<Product>(&op)) count(*product);
      if (const auto* grouped = std::get_if<GroupedProduct>(&op)) each_product(*grouped, count);
    };
  SimWorld world(config, options);
  world.start({});
  world.run_until([&] { return world.finished(); }, 1'000'000'000);
  std::filesystem::remove_all(folder);
  return counted;
}

}  // namespace

TEST_CASE("an FP8 run scales all products of a shard, and a stage's MLPs'; attention's if it is asked to",
          "[sim][fp8]") {
  auto fp8 = products_of(stage_and_shard("fp8")), halves = products_of(stage_and_shard("bfloat16"));
  Config asked = stage_and_shard("fp8");
  asked.train.fp8_attention = true;
  auto all = products_of(asked);
  for (const Counted& shard : {fp8[Role::expert_shard], all[Role::expert_shard]})
    CHECK((shard.scaled > 0 && shard.plain == 0));
  // A microbatch: three layers of three linear ones in attention and two in the MLP, three products each; beside them
  // the two routers' backward products, the head's three for each of two losses, and eh_proj's three.
  CHECK(fp8[Role::stage].scaled == 2 * 3 * 2 * 3);
  CHECK(all[Role::stage].scaled == 2 * 3 * 5 * 3);
  for (const Counted& stage : {fp8[Role::stage], all[Role::stage]})
    CHECK(stage.scaled + stage.plain == 2 * (3 * 5 * 3 + 2 * 2 + 2 * 3 + 3));
  for (auto* const run : {&fp8, &all})
    for (const auto& [role, counted] : *run) CHECK(counted.quantizing == 0);
  for (auto& [role, counted] : halves) CHECK((counted.scaled == 0 && counted.plain > 0));
}
