// Silent data corruption: memory that fails under a running step, in a world of the production actors.
#include <unistd.h>

#include <bit>
#include <filesystem>
#include <set>

#include "actors/rules/placement.h"
#include "kernels/base/random.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/simulation/sim_world.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr std::uint32_t kFailing = 1;  // the node whose memory fails: it has one stage and no expert shard

// Two replicas of two stages on four nodes, the experts on the first.
Config four_nodes() {
  Config config;
  config.model.model_type = "deepseek_v3";
  config.model.vocab_size = 16;
  config.model.hidden_size = 8;
  config.model.intermediate_size = 8;
  config.model.moe_intermediate_size = 8;
  config.model.num_hidden_layers = 2;
  config.model.first_k_dense_replace = 1;
  config.model.num_attention_heads = config.model.num_key_value_heads = 2;
  config.model.max_position_embeddings = 64;
  config.model.kv_lora_rank = 8;
  config.model.qk_nope_head_dim = config.model.v_head_dim = config.model.qk_rope_head_dim = 4;
  config.model.n_routed_experts = 4;
  config.model.num_experts_per_tok = 2;
  config.train.steps = 6;
  config.train.batch_sequences = config.train.microbatches = 4;
  config.train.gradient_lanes = 2;
  config.train.sequence_length = 8;
  config.train.warmup_steps = 1;
  config.data.kind = "none";
  config.evaluate.every_steps = 0;
  config.evaluate.exact_match_problems = 0;
  config.checkpoint.every_steps = 0;
  config.layout.nodes = 4;
  config.layout.replicas = 2;
  config.layout.stages = 2;
  config.device.threads = 1;
  return config;
}

// One bit of one element of one gradient, before its squares are summed.
struct Flip {
  std::int64_t step = 0;
  std::size_t tensor = 0;     // of those of the node, in the order of their memory
  std::uint64_t element = 0;  // modulo its size
  int bit = 0;
};

struct Outcome {
  std::string problem;
  std::int64_t steps = 0;  // committed
  bool finished = false;
};

Outcome run(const Config& config, const Flip& flip) {
  const std::string folder = fmt::format("/dev/shm/troupe-corruption-test-{}", ::getpid());
  std::filesystem::create_directories(folder + "/checkpoints");
  SimWorldOptions options;
  options.run_folder = folder;
  options.corpus = make_sim_corpus(config);
  options.devices.resize(static_cast<std::size_t>(config.layout.nodes));
  std::set<const void*> gradients;  // as the first step found them
  options.devices[kFailing].before = [&](const SegmentKey& key, const Op& op) {
    const auto* measured = std::get_if<SumSquares>(&op);
    if (measured == nullptr) return;
    if (key.step == 0) gradients.insert(measured->x.data);
    const bool fails = key.step == flip.step &&
                       *std::next(gradients.begin(), static_cast<std::ptrdiff_t>(flip.tensor)) == measured->x.data;
    if (!fails) return;
    const auto at = static_cast<std::int64_t>(flip.element % static_cast<std::uint64_t>(measured->x.elements()));
    float& value = measured->x.row<float>(at / measured->x.cols)[at % measured->x.cols];
    value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1U << flip.bit);
  };
  SimWorld world(config, options);
  world.start({});
  world.run_until([&] { return world.finished() || !world.problem().empty(); }, 1'000'000'000);
  Outcome outcome{world.problem(), 0, world.finished()};
  for (const Report& report : world.reports()) outcome.steps += report.kind == "step" ? 1 : 0;
  std::filesystem::remove_all(folder);
  return outcome;
}

}  // namespace

TEST_CASE("whatever bit flips in one twin's gradient, the run stops at that step and names tensor and nodes", "[sim]") {
  const Config config = four_nodes();
  const auto places = place_owners(config);
  std::vector<Address> stages;
  for (const auto& [owner, node] : places)
    if (node == kFailing) stages.push_back(owner);
  REQUIRE(stages.size() == 1);
  REQUIRE(stages[0].role == Role::stage);
  const auto stage = static_cast<int>(stages[0].index) % config.layout.stages;
  const Address twin = stage_address(config, 1 - static_cast<int>(stages[0].index) / config.layout.stages, stage);
  std::vector<std::string> names;
  for (const Parameter& p : stage_parameters(config, stage_shapes(config)[static_cast<std::size_t>(stage)]))
    if (p.kind != ParameterKind::router_bias) names.push_back(p.name);
  for (std::uint64_t draw = 0; draw < 60; ++draw) {
    const auto below = [&](std::uint64_t bound, std::uint64_t purpose) {
      return random_below(bound, 7 + purpose, draw);
    };
    const Flip flip{1 + static_cast<std::int64_t>(below(5, 0)), below(names.size(), 1), below(1 << 20, 2),
                    static_cast<int>(draw % 32)};
    const Outcome outcome = run(config, flip);
    INFO("step " << flip.step << " tensor " << names[flip.tensor] << " element " << flip.element << " bit " << flip.bit
                 << ": " << outcome.problem);
    CHECK(!outcome.finished);
    CHECK(outcome.steps == flip.step);  // those before it and no other
    CHECK_THAT(outcome.problem, Catch::Contains(fmt::format("the gradients of {} differ", names[flip.tensor])));
    CHECK_THAT(outcome.problem, Catch::Contains(fmt::format("in step {}:", flip.step)));
    for (const Address& owner : {stages[0], twin})
      CHECK_THAT(outcome.problem, Catch::Contains(fmt::format("{} (node {})", to_string(owner), places.at(owner))));
  }
}
