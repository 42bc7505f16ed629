// The plan before a run: every actor of the run, its memory by kind, and sums that are sums.
#include "launcher/plan.h"

#include <dlfcn.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/owner.h"
#include "actors/rules/placement.h"
#include "actors/rules/recovery.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/plan_overhead.h"

#include "tests/support/catch.h"
#include "tests/support/run.h"

using namespace troupe;

namespace {

Config tiny(const std::vector<std::string>& sets = {}) {
  Config config = load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", sets);
  config.device.threads = 1;
  return config;
}

Plan plan_of(const std::vector<std::string>& sets = {}) { return make_plan(tiny(sets), 0); }

std::size_t sum_of(const Plan& plan, std::size_t ActorPlan::*kind) {
  std::size_t sum = 0;
  for (const ActorPlan& actor : plan.actors) sum += actor.*kind;
  return sum;
}

std::size_t peak_of(const Plan& plan) {
  std::size_t sum = 0;
  for (const NodePlan& node : plan.nodes) sum += node.total();
  return sum;
}

}  // namespace

TEST_CASE("a plan has the run's owners where the run places them, and a node's actors sum up", "[plan]") {
  for (const std::vector<std::string>& sets : {std::vector<std::string>{},
                                               {"layout.stages=3", "layout.expert_shards=2", "layout.nodes=4"},
                                               {"layout.replicas=4", "layout.nodes=2"},
                                               {"layout.replicas=2", "layout.stages=2", "layout.expert_shards=4"}}) {
    const Config config = tiny(sets);
    const Plan plan = make_plan(config, 1000);
    const auto places = place_actors(config);
    std::multiset<Address> planned, expected;
    std::map<std::uint32_t, std::size_t> actors;
    for (const Address& holder : holders(config)) expected.insert(holder);
    for (const ActorPlan& actor : plan.actors) {
      planned.insert(actor.address);
      CHECK(actor.node == places.at(actor.address));
      CHECK(actor.total() ==
            actor.weights + actor.moments + actor.gradients + actor.activations + actor.stash + actor.buffers);
      actors[actor.node] += actor.total();
    }
    CHECK(planned == expected);
    REQUIRE(plan.nodes.size() == static_cast<std::size_t>(config.layout.nodes));
    for (const NodePlan& node : plan.nodes) {
      CHECK(node.actors == actors[node.node]);
      CHECK(node.total() == node.actors + node.process + node.data + node.messages);
      CHECK(node.data == (node.node == 0 ? 1000 : 0));
    }
  }
}

TEST_CASE("a plan has staging memory for a GPU that has neighbours: four times the rows that go at once, within limits",
          "[plan]") {
  const auto mib = [](const std::vector<std::string>& more) {
    std::vector<std::string> sets{"layout.nodes=2", "device.kind=cuda"};
    sets.insert(sets.end(), more.begin(), more.end());
    return static_cast<double>(staging_bytes(tiny(sets))) / (1 << 20);
  };
  CHECK(mib({"layout.nodes=1"}) == 0);
  CHECK(mib({"device.kind=cpu"}) == 0);
  CHECK(mib({"device.staged_kib_min=0"}) == 0);
  CHECK(mib({}) == 32);
  // 64 rows to each of two experts, in float32; between stages once.
  const std::string wide = "model.hidden_size=131072", wider = "model.hidden_size=4194304";
  CHECK(mib({wide}) == 4 * 64);
  CHECK(mib({wide, "train.dtype=bfloat16"}) == 4 * 32);
  CHECK(mib({wide, "train.dtype=bfloat16", "model.num_experts_per_tok=1", "layout.stages=2"}) == 4 * 32);
  CHECK(mib({wider}) == 1024);
}

TEST_CASE("a plan has each weight once a replica, with two moments for all but the router's bias", "[plan]") {
  const Config config = tiny();
  std::size_t weights = 0, moments = 0;
  for (const Parameter& p : model_parameters(config.model)) {
    weights += static_cast<std::size_t>(p.elements()) * 4;
    if (p.kind != ParameterKind::router_bias) moments += static_cast<std::size_t>(p.elements()) * 8;
  }
  // Tensors begin at multiples of 64 bytes, which costs a small model some percent.
  const auto about = [](std::size_t bytes) { return Approx(static_cast<double>(bytes)).epsilon(0.05); };
  for (const std::vector<std::string>& sets :
       {std::vector<std::string>{}, {"layout.stages=3", "layout.expert_shards=2"}}) {
    const Plan plan = plan_of(sets);
    CHECK(static_cast<double>(sum_of(plan, &ActorPlan::weights)) == about(weights));
    CHECK(static_cast<double>(sum_of(plan, &ActorPlan::moments)) == about(moments));
  }
  CHECK(sum_of(plan_of({"layout.replicas=2"}), &ActorPlan::weights) > sum_of(plan_of(), &ActorPlan::weights));
}

TEST_CASE("a plan has moments and gradients of what learns alone, and until experts are chosen of all", "[plan]") {
  const auto sets = [](const std::string& experts) {
    return std::vector<std::string>{"train.trainable=experts", "train.experts=" + experts,
                                    "train.experts_threshold=0.5", "layout.stages=2", "layout.nodes=2"};
  };
  const Plan all = plan_of({"layout.stages=2", "layout.nodes=2"}), some = plan_of(sets("[\"1.1\", \"2.0\"]")),
             unknown = plan_of(sets("[]"));
  const std::size_t expert = 3 * 32 * 16 * 4;
  CHECK(sum_of(some, &ActorPlan::moments) == 2 * 2 * 2 * expert);  // two experts and their copies
  CHECK(sum_of(unknown, &ActorPlan::moments) == 2 * 2 * 8 * expert);
  CHECK(sum_of(some, &ActorPlan::gradients) == 2 * 2 * expert);
  CHECK(sum_of(some, &ActorPlan::weights) == sum_of(all, &ActorPlan::weights));
  CHECK(peak_of(some) < peak_of(unknown));
  CHECK(peak_of(unknown) < peak_of(all));
  CHECK_THAT(describe(tiny(sets("[\"1.1\"]")), some), Catch::Contains("the rest is frozen"));
}

TEST_CASE("a plan tells the device's memory from shared memory: most of a slot is the device's, snapshots are shared",
          "[plan]") {
  const Plan one = plan_of({"layout.slots=1"}), two = plan_of({"layout.slots=2"});
  std::size_t device = 0;
  for (std::size_t i = 0; i < one.actors.size(); ++i) {
    const ActorPlan &less = one.actors[i], &more = two.actors[i];
    device += less.device();
    CHECK(less.shared >= less.weights + less.moments);  // copied for a checkpoint
    CHECK(less.device() >= less.weights + less.moments + less.gradients + less.stash);
    if (less.address.role != Role::stage) continue;
    CHECK(more.shared > less.shared);  // ids, counts, losses
    CHECK(more.device() - less.device() > 10 * (more.shared - less.shared));
  }
  CHECK(one.nodes[0].device == device);
}

TEST_CASE("a plan has rows on their way to experts in the activation type, between stages in float32", "[plan]") {
  // In each of two stages four microbatches of 64 rows, to two experts and back; of each one that waits its turn.
  const std::size_t elements = 2 * 2 * 4 * 2 * 64 * 32;
  CHECK(plan_of({"layout.stages=2"}).nodes[0].messages == elements * (2 * 4 + 4));
  CHECK(plan_of({"layout.stages=2", "train.dtype=bfloat16"}).nodes[0].messages == elements * (2 * 2 + 4));
}

TEST_CASE("with a GPU a plan says what of a node's peak is the GPU's: rows that stay on the node too", "[plan]") {
  const auto actors_of = [](const Plan& plan, std::uint32_t node) {
    std::size_t sum = 0;
    for (const ActorPlan& actor : plan.actors) sum += actor.node == node ? actor.device() + actor.carried : 0;
    return sum;
  };
  const Config config = tiny({"layout.stages=2", "device.kind=cuda"});
  const Plan plan = make_plan(config, 0), host = plan_of({"layout.stages=2"});
  const std::size_t rows = 2 * 2 * 4 * 2 * 64 * 32 * (2 * 4 + 4);
  CHECK(plan.nodes[0].messages == rows);
  // And pages that payloads don't fill.
  const auto pages_of = [](const Config& laid, std::uint32_t node) {
    return overheads(laid, place_actors(laid))[node].pages;
  };
  CHECK(plan.nodes[0].device == actors_of(plan, 0) + rows + pages_of(config, 0));
  CHECK(host.nodes[0].device + plan.actors[0].carried + plan.actors[1].carried == actors_of(plan, 0));
  CHECK(host.nodes[0].total() == plan.nodes[0].total());
  const double mib = static_cast<double>(actors_of(plan, 0) + rows + pages_of(config, 0)) / (1 << 20);
  CHECK_THAT(describe(config, plan),
             Catch::Contains(fmt::format("; at most {:.0f} MiB of it on the GPU; 1 compute", mib)));
  CHECK(describe(tiny({"layout.stages=2"}), host).find("GPU") == std::string::npos);
  // On two nodes any of a stage's rows may stay, or leave while others arrive: from the GPU's memory, or through pinned.
  for (const std::string way : {"auto", "nccl", "ucx", "host"}) {
    const std::size_t ways = way == "auto" || way == "nccl" ? std::size_t{64} << 20 : 0;
    const Config two_nodes =
        tiny({"layout.stages=2", "layout.nodes=2", "device.kind=cuda", "layout.device_transport=" + way});
    const Plan two = make_plan(two_nodes, 0);
    for (const NodePlan& node : two.nodes) {
      CHECK(node.device == actors_of(two, node.node) + (way == "host" ? 1 : 3) * rows / 2 + ways +
                               staging_bytes(two_nodes) + pages_of(two_nodes, node.node));
      CHECK(node.messages == 3 * rows / 2);
    }
  }
}

TEST_CASE("a plan has the embedding's copy and the gradients of its other uses as they pass between stages", "[plan]") {
  const auto buffers = [](std::uint32_t stage, const std::vector<std::string>& sets) {
    std::vector<std::string> all{"layout.stages=3"};
    all.insert(all.end(), sets.begin(), sets.end());
    for (const ActorPlan& actor : plan_of(all).actors)
      if (actor.address == Address{Role::stage, stage}) return actor.buffers;
    return std::size_t{0};
  };
  const std::size_t table = 128 * 32 * 4;
  const std::string tied = "model.tie_word_embeddings=true", mtp = "model.num_nextn_predict_layers=1";
  CHECK(buffers(0, {tied}) == buffers(0, {}) + table);
  CHECK(buffers(0, {mtp}) == buffers(0, {}) + table);
  CHECK(buffers(0, {tied, mtp}) == buffers(0, {}) + 3 * table);  // head, the joint's embedding and the joint's head
  CHECK(buffers(1, {tied, mtp}) == buffers(1, {}));
  // The last stage has as many, beside what an owner has and its snapshot.
  const std::string unread = "evaluate.exact_match_problems=0";  // no cache
  const Config config = tiny({"layout.stages=3", tied, mtp, unread});
  const OwnerMemory owner =
      Owner::memory(config, ParameterBlock(stage_parameters(config, stage_shapes(config)[2])), 4, 1, 3 * 128 * 32);
  CHECK(buffers(2, {tied, mtp, unread}) == owner.shared + owner.weights + owner.moments + 3 * table);
}

TEST_CASE("what a stage holds of its twins' sums is two to three sums, whatever the number of replicas", "[plan]") {
  Config config = tiny({"evaluate.exact_match_problems=0"});
  config.train.gradient_lanes = config.train.microbatches = config.train.batch_sequences = 128;
  const ParameterBlock block(stage_parameters(config, stage_shapes(config)[0]));
  const auto sum = 4 * static_cast<double>(block.elements());
  const auto alone = plan_stage(config, 1, stage_shapes(config)[0]).buffers;
  for (const int replicas : {2, 4, 8, 32, 128}) {
    config.layout.replicas = replicas;
    const ActorPlan stage = plan_stage(config, 1, stage_shapes(config)[0]);
    const double own = 128.0 / replicas * sum;  // of each lane
    const double twins = static_cast<double>(stage.gradients) - own + static_cast<double>(stage.buffers - alone);
    INFO(replicas << " replicas: " << twins / sum << " sums");
    CHECK((twins > 1.4 * sum && twins < 2.3 * sum));
  }
}

TEST_CASE(
    "a plan has a small message of sums as a whole page and what it takes beside, once where it stays on its node",
    "[plan]") {
  const auto sums = [](int replicas, int elements_max, int here, std::int64_t elements) {
    Config config;
    config.layout.replicas = replicas;
    config.layout.sums_elements_max = elements_max;
    return sums_overhead(config, elements, here);
  };
  // 512 elements are a part, 32 messages of a page each. Two replicas on a node have two parts on their way and two
  // added, and they count six; one has its own on its way, its twin's, and one that it added, and it counts these.
  CHECK(sums(2, 16, 2, 1024).pages == 4 * 32 * 4096 - 6 * 512 * 4);
  CHECK(sums(2, 16, 1, 1024).pages == 3 * 32 * 4096 - 3 * 512 * 4);
  CHECK(sums(2, 512, 1, 1024).pages == 3 * 4096 - 3 * 512 * 4);
  CHECK(sums(2, 16, 2, 1024).blocks == 32 * sums(2, 512, 2, 1024).blocks);
  CHECK(sums(2, 512, 2, 1024).blocks >= 4 * (512 + 1024));  // an envelope and an op of each
  // Parts are small where replicas are many, whatever a message may have: 64 x 63 partial sums and 64 that were added.
  CHECK(sums(64, 1 << 25, 64, 1024).pages == 64 * 64 * 4096 - 64 * 127 * 16 * 4);
  CHECK(sums(1, 16, 1, 1024).total() == 0);
  CHECK(sums(2, 16, 0, 1024).total() == 0);
  CHECK(sums(2, 1 << 25, 1, std::int64_t{1} << 26).pages == 0);
  CHECK(sums(2, 1 << 25, 1, std::int64_t{1} << 26).blocks < 3 * (std::size_t{1} << 27) / 1000);
}

TEST_CASE(
    "what a plan has beside tensors and rows grows with actors, shards and tensors, and is a percent of most runs",
    "[plan]") {
  const auto beside = [](const std::vector<std::string>& sets) {
    const Config config = tiny(sets);
    return overheads(config, place_actors(config)).at(0).total();
  };
  const std::size_t one = beside({});
  CHECK(beside({"layout.replicas=4"}) > one + 3 * (std::size_t{32} << 10));
  CHECK(beside({"layout.expert_shards=4"}) > one + 6 * (std::size_t{32} << 10));
  CHECK(beside({"model.n_routed_experts=64"}) > one + std::size_t{2 * 60 * 3} * 4096);
  CHECK(beside({"layout.sums_elements_max=16"}) == one);  // nobody to add with
  CHECK(plan_of({"layout.replicas=4"}).nodes[0].process > plan_of({"layout.replicas=2"}).nodes[0].process);
  const Config quickstart = load_config(TROUPE_SOURCE_DIR "/configs/quickstart.toml", {"device.threads=2"});
  const Plan plan = make_plan(quickstart, 0);
  CHECK(overheads(quickstart, place_actors(quickstart))[0].total() < plan.nodes[0].total() / 75);
}

TEST_CASE("two processes that send each other a thousand small messages of sums stay under their plan", "[plan]") {
  if (::dlsym(RTLD_DEFAULT, "__asan_init") != nullptr) return;  // the sanitizer's own memory is in no plan
  const test::Folder folder;
  const std::vector<std::string> sets{"layout.replicas=2", "layout.nodes=2", "layout.sums_elements_max=16",
                                      "inspect.journal_mib=1", "train.steps=2"};
  const test::Ended ended = test::troupe(test::tiny_run(folder / "run", sets));
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  const auto bills = test::metrics_of(folder / "run", "bill");
  REQUIRE(!bills.empty());
  const Plan plan = make_plan(tiny(test::tiny_sets(sets)), std::size_t{1} << 17);
  for (const NodePlan& node : plan.nodes) {
    const double planned = static_cast<double>(node.total()) / (1 << 20);
    INFO("node " << node.node << " has planned " << planned << " MiB");
    CHECK(bills.back().at("memory_mib").at(node.node).get<double>() < planned);
  }
}

TEST_CASE("a plan grows with slots, to as many as there are microbatches", "[plan]") {
  const auto activations = [](const std::string& slots) {
    const Plan plan = plan_of({"layout.slots=" + slots});
    std::size_t sum = 0;
    for (const ActorPlan& actor : plan.actors) sum += actor.address.role == Role::stage ? actor.activations : 0;
    return sum;
  };
  CHECK(activations("2") == 2 * activations("1"));
  CHECK(activations("4") == 4 * activations("1"));
  CHECK(activations("9") == activations("4"));
}

TEST_CASE("a plan shows what a choice costs", "[plan]") {
  CHECK(sum_of(plan_of({"layout.stash_factor=0"}), &ActorPlan::stash) == 0);
  CHECK(sum_of(plan_of({"layout.stash_factor=2"}), &ActorPlan::stash) >
        sum_of(plan_of({"layout.stash_factor=1"}), &ActorPlan::stash));
  CHECK(sum_of(plan_of({"train.gradient_lanes=1"}), &ActorPlan::gradients) <
        sum_of(plan_of({"train.gradient_lanes=4"}), &ActorPlan::gradients));
  CHECK(sum_of(plan_of({"train.dtype=bfloat16"}), &ActorPlan::activations) <
        sum_of(plan_of(), &ActorPlan::activations));
  CHECK(sum_of(plan_of({"train.dtype=bfloat16"}), &ActorPlan::weights) > sum_of(plan_of(), &ActorPlan::weights));
  // In FP8 a compute thread holds 512 rows of codes as wide floats: as deep here as the dense layer's two halves.
  const std::vector<std::string> halves{"train.dtype=bfloat16", "layout.chunk_rows_max=128"},
      fp8{"train.dtype=fp8", "layout.chunk_rows_max=128"};
  // Weights have codes, both ways round.
  const std::size_t codes = sum_of(plan_of(fp8), &ActorPlan::weights) - sum_of(plan_of(halves), &ActorPlan::weights);
  CHECK(codes > sum_of(plan_of(halves), &ActorPlan::weights) / 10);
  CHECK(peak_of(plan_of(fp8)) > peak_of(plan_of(halves)) + 512 * 2 * 64 * 4);
  // On a GPU all of them are bytes in its memory; of rows those of a layer's weight gradients together.
  const auto on_gpu = [](std::vector<std::string> sets) {
    sets.push_back("device.kind=cuda");
    return plan_of(sets).nodes[0];
  };
  CHECK(on_gpu(fp8).process > on_gpu(halves).process);
  CHECK(on_gpu(fp8).device - on_gpu(halves).device > on_gpu(fp8).process - on_gpu(halves).process);
  CHECK(peak_of(plan_of({"train.sequence_length=128"})) > peak_of(plan_of()));
  CHECK(peak_of(plan_of({"layout.nodes=2"})) > peak_of(plan_of()));
}

TEST_CASE("a plan in words names every actor, what it holds, and each node's peak", "[plan]") {
  const Config config =
      tiny({"layout.stages=3", "layout.expert_shards=2", "layout.nodes=2", "model.num_nextn_predict_layers=1"});
  const std::string text = describe(config, make_plan(config, 0));
  INFO(text);
  const auto says = [&](const std::string& part) { return text.find(part) != std::string::npos; };
  for (const Address& owner : owners(config)) CHECK(says(to_string(owner)));
  for (const std::string part : {"layer 0, embedding", "head, MTP", "experts 0-1", "experts 2-3", "node 0: peak",
                                 "node 1: peak", "8 sequences x 32 tokens in 4 microbatches"})
    CHECK(says(part));
}

TEST_CASE("a layout that can't be is refused before anything is planned", "[plan]") {
  for (const auto& [set, sentence] : std::map<std::string, std::string>{
           {"layout.stages=4", "layout.stages is 4, must be at most model.num_hidden_layers (3)"},
           {"layout.expert_shards=5", "layout.expert_shards is 5, must be at most model.n_routed_experts (4)"},
           {"layout.replicas=3", "layout.replicas is 3, must divide train.gradient_lanes (4)"},
           {"layout.nodes=3", "layout.nodes is 3, must be at most 2"}}) {
    CHECK_THROWS_WITH(tiny({set}), Catch::Matchers::Contains(sentence));
  }
}

TEST_CASE("no more nodes are allowed than there are actors to place", "[plan]") {
  // Three stages, the first one with the dense layer only: 3 stage and 2 shard actors.
  CHECK(tiny({"layout.stages=3", "layout.nodes=5"}).layout.nodes == 5);
  CHECK_THROWS_WITH(tiny({"layout.stages=3", "layout.nodes=6"}),
                    Catch::Matchers::Contains("layout.nodes is 6, must be at most 5"));
}
