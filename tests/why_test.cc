// Why a run is waiting: planted wedges whose root must be named, in simulated worlds and in real processes; and healthy
// worlds in which no stall may be told.
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/rules/placement.h"
#include "kernels/base/log.h"
#include "launcher/board_file.h"
#include "launcher/loop.h"
#include "launcher/simulation/scenario.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/stall.h"
#include "launcher/why.h"
#include "tests/support/run.h"
#include "tests/support/stuck.h"

#include "tests/support/catch.h"

using namespace troupe;
namespace fs = std::filesystem;

namespace {

// Two replicas of two stages with two shards each, on two nodes; a tied head, shadows of the shards, evaluations and
// checkpoints. No numbers are computed.
Config small_company() {
  Config c;
  ModelConfig& m = c.model;
  m.model_type = "deepseek_v3";
  m.vocab_size = 16;
  m.hidden_size = m.intermediate_size = 8;
  m.num_hidden_layers = 4;
  m.num_attention_heads = m.num_key_value_heads = 2;
  m.tie_word_embeddings = true;
  m.max_position_embeddings = 64;
  m.kv_lora_rank = 8;
  m.qk_nope_head_dim = m.v_head_dim = 4;
  m.qk_rope_head_dim = 2;
  m.moe_intermediate_size = 4;
  m.n_routed_experts = 4;
  m.n_shared_experts = 1;
  m.num_experts_per_tok = 2;
  m.first_k_dense_replace = 0;
  c.train.steps = 6;
  c.train.gradient_lanes = 2;
  c.train.microbatches = 4;
  c.train.batch_sequences = 8;
  c.train.sequence_length = 8;
  c.data.kind = "none";
  c.evaluate.exact_match_problems = 0;
  c.evaluate.every_steps = 2;
  c.checkpoint.every_steps = 2;
  c.layout.nodes = c.layout.replicas = c.layout.stages = c.layout.expert_shards = 2;
  c.layout.slots = 1;
  c.layout.chunk_rows_max = 16;
  c.layout.chunk_credits = 1;
  c.device.threads = 1;
  return c;
}

SimWorldOptions calm(const Config& config, const std::string& folder) {
  SimWorldOptions options;
  options.run_folder = folder;
  options.devices.resize(static_cast<std::size_t>(config.layout.nodes));
  for (SimDeviceOptions& device : options.devices) device.numbers = false;
  return options;
}

struct Wedge {
  std::string name;
  std::function<void(Config&, SimWorldOptions&)> plant;         // before the world is made
  std::function<void(SimWorld&, const Envelope&)> strike = {};  // at each message
  RootKind kind = RootKind::lost;
  std::vector<std::string> named = {};  // in the root
};

struct Found {
  bool stalled = false, finished = false, lost = false;
  Envelope gone;  // what was lost
  Explanation why;
  bool still = false;  // stands_still says so
};

Found run_wedge(const Wedge& wedge, const std::string& folder, std::uint64_t seed = 1) {
  fs::create_directories(folder + "/checkpoints");
  Config config = small_company();
  SimWorldOptions options = calm(config, folder);
  if (wedge.plant) wedge.plant(config, options);
  options.corpus = config.data.kind == "none" ? make_sim_corpus(config) : open_corpus(config);
  options.devices.resize(static_cast<std::size_t>(config.layout.nodes), options.devices.front());
  options.seed = seed;
  Found found;
  if (options.loses)
    options.loses = [&found, loses = options.loses](const Envelope& envelope) {
      if (!loses(envelope)) return false;
      found.lost = true;
      found.gone = envelope;
      return true;
    };
  SimWorld* here = nullptr;
  SimWorld world(config, options, [&](std::int64_t, std::uint32_t, const Envelope& envelope) {
    if (wedge.strike && here != nullptr) wedge.strike(*here, envelope);
  });
  here = &world;
  world.start({});
  StallRule rule(std::int64_t{1'000'000} * config.limits.stall_seconds);
  std::int64_t looked_us = 0;
  world.run_until(
      [&] {
        if (world.now_us() - looked_us >= 1'000'000) {
          looked_us = world.now_us();
          found.stalled = rule.look(looked_us, world.pages());
        }
        return found.stalled || world.finished();
      },
      600'000'000);
  found.finished = world.finished();
  found.why = explain(config, world.pages(), {world.now_us(), "troupe train --resume"});
  found.still = stands_still(found.why, config, world.now_us());
  fs::remove_all(folder);
  return found;
}

// The n-th message of a kind (counted from 1) that `is_meant` vanishes before its actor.
template <typename M>
Wedge lost(const std::string& kind, int n, std::function<bool(const M&, const Envelope&)> is_meant = {},
           const std::function<void(Config&)>& change = {}) {
  Wedge wedge;
  wedge.name = fmt::format("{} {} lost", kind, n);
  wedge.plant = [=](Config& config, SimWorldOptions& options) {
    if (change) change(config);
    options.loses = [=, left = n](const Envelope& envelope) mutable {
      const auto* message = std::get_if<M>(&envelope.message);
      return message != nullptr && (!is_meant || is_meant(*message, envelope)) && --left == 0;
    };
  };
  wedge.named = {kind};
  return wedge;
}

bool forward(const WorkKey& key) { return key.kind == WorkKind::train && key.direction == Direction::forward; }

// later: of the messages of a kind so many later ones.
std::vector<Wedge> lost_messages(int later = 0) {
  const auto batch_forward = [](const ExpertBatch& b, const Envelope&) { return forward(b.key); };
  const auto batch_backward = [](const ExpertBatch& b, const Envelope&) { return !forward(b.key); };
  const auto result_forward = [](const ExpertResult& b, const Envelope&) { return forward(b.key); };
  const auto result_backward = [](const ExpertResult& b, const Envelope&) { return !forward(b.key); };
  const auto credit = [](Channel channel) {
    return [channel](const Credit& c, const Envelope&) { return c.channel == channel; };
  };
  const auto to = [](Role role) { return [role](const auto&, const Envelope& e) { return e.to.role == role; }; };
  const auto tokens_to = [](std::uint32_t stage) {
    return [stage](const TokenBatch& b, const Envelope& e) { return b.key.step == 1 && e.to.index == stage; };
  };
  const auto deep = [](Config& c) { c.train.microbatches = 8; };
  const auto answers = [](Config& c) {
    c.model.vocab_size = 256;
    c.data.kind = "arithmetic";
    c.data.arithmetic_digits = 1;
    c.train.sequence_length = 32;
    c.train.steps = 1;
    c.evaluate.exact_match_problems = 2;
  };
  return {lost<Inquiry>("Inquiry", 2),
          lost<Standing>("Standing", 3),
          lost<Restore>("Restore", 3, to(Role::expert_shard)),
          lost<Restored>("Restored", 4),
          lost<StartStep>("StartStep", 2),
          lost<StepPlan>("StepPlan", 3),
          lost<TokenBatch>("TokenBatch", 1, tokens_to(0)),
          lost<TokenBatch>("TokenBatch", 1, tokens_to(3)),
          lost<Activations>("Activations", 7 + later),
          lost<ActivationGradients>("ActivationGradients", 6 + later),
          lost<ExpertBatch>("ExpertBatch", 30 + later, batch_forward),
          lost<ExpertBatch>("ExpertBatch", 30 + later, batch_backward),
          lost<ExpertResult>("ExpertResult", 30 + later, result_forward),
          lost<ExpertResult>("ExpertResult", 30 + later, result_backward),
          lost<Credit>("Credit", 7 + later, credit(Channel::microbatch), deep),
          lost<Credit>("Credit", 60 + later, credit(Channel::dispatch_forward)),
          lost<Credit>("Credit", 60 + later, credit(Channel::dispatch_backward)),
          lost<PartialSums>("PartialSums", 6 + later),
          lost<ReducedSums>("ReducedSums", 5 + later),
          lost<SharedGradient>("SharedGradient", 3),
          lost<SharedTensor>("SharedTensor", 5),
          lost<ShadowGradient>("ShadowGradient", 5),
          lost<GradientHeld>("GradientHeld", 5),
          lost<Vote>("Vote", 9 + later),
          lost<Decision>("Decision", 3, to(Role::stage)),
          lost<Decision>("Decision", 4, to(Role::expert_shard)),
          lost<Decision>("Decision", 4, to(Role::shadow)),
          lost<EvaluationLoss>("EvaluationLoss", 3),
          lost<SnapshotBegin>("SnapshotBegin", 1),
          lost<SnapshotPart>("SnapshotPart", 20 + later),
          lost<CheckpointDone>("CheckpointDone", 1),
          lost<Generated>("Generated", 1, {}, answers),
          lost<GenerateBatch>("GenerateBatch", 2, {}, answers),
          lost<GenerateActivations>("GenerateActivations", 2, {}, answers)};
}

// Acts once, at the n-th message of a kind to such an actor.
std::function<void(SimWorld&, const Envelope&)> at(const std::string& kind, int n,
                                                   const std::function<void(SimWorld&, const Envelope&)>& act) {
  return [=, left = n](SimWorld& world, const Envelope& envelope) mutable {
    if (kind_of(envelope.message) != kind || --left != 0) return;
    world.events().at(world.now_us(), [&world, act, envelope] { act(world, envelope); });
  };
}

std::uint32_t node_of(const Envelope& envelope) { return place_actors(small_company()).at(envelope.to); }

// Its place among the actors of its node.
std::uint32_t handle_of(const Envelope& envelope) {
  std::uint32_t handle = 0;
  for (const auto& [address, node] : place_actors(small_company())) {
    if (address == envelope.to) break;
    handle += node == node_of(envelope) ? 1 : 0;
  }
  return handle;
}

void hang(SimWorld& world, const Envelope& envelope) { world.hang(node_of(envelope), handle_of(envelope), envelope); }

std::vector<Wedge> other_wedges() {
  const auto cut = [](std::uint32_t from, std::uint32_t to) {
    return [=](Config&, SimWorldOptions& o) { o.network.cuts.push_back({from, to, 3'000, 1'000'000'000}); };
  };
  const auto cut_both = [=](Config& c, SimWorldOptions& o) { cut(0, 1)(c, o), cut(1, 0)(c, o); };
  const auto drops = [](Config&, SimWorldOptions& o) { o.network.drop = 0.002; };
  const auto slow = [](Config&, SimWorldOptions& o) { o.devices[1].slow = {{3'000, 1'000'000'000, 1e12}}; };
  const auto slow_disk = [](Config&, SimWorldOptions& o) { o.disk.job_us = 500'000'000; };
  const auto alone = [](Config& c, SimWorldOptions& o) {
    c.layout = {};
    o.devices.resize(1);
    o.devices[0].slow = {{3'000, 1'000'000'000, 1e12}};
  };
  const auto stop = [](std::uint32_t node) { return [=](SimWorld& world, const Envelope&) { world.stop(node); }; };
  const auto kill = [](std::uint32_t node) { return [=](SimWorld& world, const Envelope&) { world.kill(node); }; };
  Wedge no_word = lost<SegmentDone>("SegmentDone", 200), no_outcome{"no DiskDone ever comes", {}};
  no_outcome.plant = [](Config&, SimWorldOptions& o) {
    o.loses = [](const Envelope& envelope) { return std::holds_alternative<DiskDone>(envelope.message); };
  };
  no_word.kind = no_outcome.kind = RootKind::completion;
  no_word.named = {"a segment", "was lost"};
  no_outcome.named = {"a disk job", "was lost"};
  Wedge last_vote = lost<Vote>("Vote", 8, {}, [](Config& c) { c.train.steps = 1, c.evaluate.every_steps = 0; });
  return {
      no_word,
      no_outcome,
      last_vote,
      {"a handler of a shard never returns",
       {},
       at("ExpertBatch", 50, hang),
       RootKind::handler,
       {"expert_shard", "ExpertBatch"}},
      {"the loader never gets its data",
       {},
       at("StartStep", 2, hang),
       RootKind::handler,
       {"loader 0 (node 0)", "StartStep"}},
      {"the conductor never decides", {}, at("Vote", 12, hang), RootKind::handler, {"conductor 0 (node 0)", "Vote"}},
      {"the other node is stopped", {}, at("ExpertBatch", 70, stop(1)), RootKind::stopped, {"node 1"}},
      {"the conductor's node is stopped", {}, at("ExpertBatch", 70, stop(0)), RootKind::stopped, {"node 0"}},
      {"the other node is dead", {}, at("PartialSums", 3, kill(1)), RootKind::dead, {"node 1"}},
      {"the conductor's node is dead", {}, at("Vote", 9, kill(0)), RootKind::dead, {"node 0"}},
      {"nothing passes between two nodes", cut_both, {}, RootKind::link, {"node 0", "node 1", "is cut"}},
      {"nothing passes one way", cut(0, 1), {}, RootKind::link, {"node 1 has heard nothing from node 0"}},
      {"the transport loses a frame", drops, {}, RootKind::link, {"a frame from node", "is missing"}},
      {"a segment never ends", slow, {}, RootKind::segment, {"the device of node 1"}},
      {"a segment of the only node never ends", alone, {}, RootKind::segment, {"the device of node 0"}},
      {"a disk job never ends", slow_disk, {}, RootKind::disk, {"the disk of node 0"}}};
}

void expect_named(const std::vector<Wedge>& wedges, std::uint64_t seed = 1) {
  const std::string folder = fmt::format("/dev/shm/troupe-why-test-{}", ::getpid());
  start_log("why", "", LogLevel::error);
  for (const Wedge& wedge : wedges) {
    const Found found = run_wedge(wedge, folder, seed);
    if (seed > 1 && found.finished) continue;  // in that order of events it was no wedge
    INFO(wedge.name << (found.finished ? " (it finished)" : "") << "\n" << found.why.text());
    CHECK(found.stalled);
    CHECK(static_cast<int>(found.why.kind) == static_cast<int>(wedge.kind));
    CHECK(found.still);
    for (const std::string& name : wedge.named) CHECK_THAT(found.why.root, Catch::Contains(name));
    if (wedge.kind != RootKind::lost) continue;
    CHECK_THAT(found.why.root,
               Catch::Contains(to_string(found.gone.from)) && Catch::Contains(to_string(found.gone.to)));
  }
}

}  // namespace

TEST_CASE("whatever message is lost, why names it", "[why]") { expect_named(lost_messages()); }

TEST_CASE("whatever message is lost at whatever moment, why names it", "[why][.large]") {
  for (std::uint64_t seed = 2; seed <= 20; ++seed) {
    INFO("seed " << seed);
    expect_named(lost_messages(static_cast<int>(seed)), seed);
    expect_named(other_wedges(), seed);
  }
}

TEST_CASE("whatever stands still, why names it", "[why]") { expect_named(other_wedges()); }

TEST_CASE("waits that lead back to themselves are a circle", "[why]") {
  Config config = small_company();
  const auto places = place_actors(config);
  std::vector<BoardPage> pages(2);
  for (const auto& [address, node] : places) {
    BoardPage::Actor& actor = pages[node].actors.emplace_back();
    actor.address = address;
    actor.version = 1;
  }
  for (std::uint32_t node = 0; node < 2; ++node) {
    pages[node].node.node = node;
    pages[node].turn_us = 100'000'000;
  }
  const auto actor = [&](const Address& address) -> BoardPage::Actor& {
    auto& actors = pages[places.at(address)].actors;
    return *std::find_if(actors.begin(), actors.end(), [&](const auto& one) { return one.address == address; });
  };
  const Address stage{Role::stage, 0}, shard{Role::expert_shard, 0};
  const WorkKey key{WorkKind::train, Direction::backward, 1, 0, 2, 3, 0};
  actor({Role::conductor, 0}).waits = {{Awaited::vote, stage, step_key(1, 0), 0}};
  actor(stage).waits = {{Awaited::credit, shard, key, 0}};
  actor(shard).waits = {{Awaited::turn, shard, key, 0}, {Awaited::expert_batch, stage, key, 0}};
  const Explanation why = explain(config, pages, {100'000'000, "troupe train"});
  INFO(why.text());
  CHECK(why.kind == RootKind::circle);
  CHECK(why.links.size() == 4);
  CHECK_THAT(why.links.front(), Catch::StartsWith("conductor 0 (node 0) waits for a vote"));
  CHECK_THAT(why.links.back(), Catch::Contains("of 60 s (limits.stall_seconds)"));

  // Boards are written at different moments: of waits that are young, the other end may be over by now.
  actor(shard).waits.back().since_us = 99'900'000;
  const Explanation young = explain(config, pages, {100'000'000, "troupe train"});
  INFO(young.text());
  CHECK(young.kind == RootKind::working);
}

TEST_CASE("what may take its time stands still only when a stall would be told", "[why]") {
  const Config config = small_company();
  const std::int64_t limit_us = std::int64_t{1'000'000} * config.limits.stall_seconds;
  const auto told = [&](RootKind kind, std::int64_t age_us) {
    Explanation why;
    why.kind = kind;
    return stands_still(why, config, age_us);
  };
  for (const RootKind kind : {RootKind::segment, RootKind::disk, RootKind::jury, RootKind::launcher}) {
    CHECK_FALSE(told(kind, limit_us - 1));
    CHECK(told(kind, limit_us));
  }
  for (const RootKind kind : {RootKind::dead, RootKind::stopped, RootKind::handler, RootKind::silent, RootKind::link,
                              RootKind::completion, RootKind::lost, RootKind::circle})
    CHECK(told(kind, 0));
  for (const RootKind kind : {RootKind::paused, RootKind::working}) CHECK_FALSE(told(kind, 10 * limit_us));
}

TEST_CASE("a stall is told once, and again only after progress", "[why]") {
  StallRule rule(10);
  std::vector<BoardPage> pages(1);
  CHECK_FALSE(rule.look(0, pages));
  CHECK_FALSE(rule.look(9, pages));
  CHECK(rule.look(10, pages));
  CHECK_FALSE(rule.look(40, pages));
  pages[0].node.finished = 1;
  CHECK_FALSE(rule.look(50, pages));
  CHECK_FALSE(rule.look(59, pages));
  CHECK(rule.look(60, pages));
}

TEST_CASE("no stall is told in a thousand healthy worlds", "[why][.large]") {
  Simulator simulator(fmt::format("/dev/shm/troupe-why-test-{}", ::getpid()));
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
    Scenario scenario = draw_scenario(seed, {});
    scenario.config.limits.stall_seconds = 20;
    INFO("seed " << seed);
    CHECK(simulator.run(scenario).broken == "");
  }
}

// ---- Real processes -------------------------------------------------------------------------------------------------

namespace {

const test::Arguments kTwoNodes{"train.steps=100000", "layout.nodes=2", "layout.expert_shards=2",
                                "limits.silence_ms=1000000", "limits.stall_seconds=2"};

std::string ask_why(const std::string& run) { return test::troupe({"why", run}).out; }

pid_t pid_of(const std::string& run, std::uint32_t node) {
  for (const BoardPage& page : read_boards(run, 2))
    if (page.node.node == node) return static_cast<pid_t>(page.pid);
  return -1;
}

// What a person who waits a little is told.
std::string told_in_the_end(const std::string& run, const std::string& expected) {
  std::string told;
  for (int i = 0; i < 100 && told.find(expected) == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    told = ask_why(run);
  }
  return told;
}

}  // namespace

TEST_CASE("a stopped process is named, in the warning and when asked", "[why]") {
  const test::Folder folder;
  const std::string run = folder / "run";
  test::Process process(test::troupe_command(test::tiny_run(run, kTwoNodes)), 60'000);
  REQUIRE(process.follow([&] { return test::metrics_of(run, "step").size() > 3; }));
  CHECK_THAT(told_in_the_end(run, "nothing stands still"), Catch::Contains("root: nothing stands still"));
  const pid_t victim = pid_of(run, 1);
  ::kill(victim, SIGSTOP);
  CHECK_THAT(told_in_the_end(run, "is stopped"),
             Catch::Contains(fmt::format("node 1 (process {}) is stopped", victim)));
  CHECK(process.follow([&] {
    const auto told = test::metrics_of(run, "stall");  // the last: an overloaded machine may have stood still before
    return !told.empty() && told.back().at("root").get<std::string>().find("is stopped") != std::string::npos;
  }));
  CHECK_THAT(process.err(), Catch::Contains("no progress for 2 s (limits.stall_seconds)"));
  ::kill(victim, SIGCONT);
  const std::size_t steps = test::metrics_of(run, "step").size();
  CHECK(process.follow([&] { return test::metrics_of(run, "step").size() > steps; }));
}

TEST_CASE("a dead process that nobody replaces is named, and so is who should", "[why]") {
  const test::Folder folder;
  const std::string run = folder / "run";
  test::Process process(test::troupe_command(test::tiny_run(run, kTwoNodes)), 60'000);
  REQUIRE(process.follow([&] { return test::metrics_of(run, "step").size() > 3; }));
  ::kill(process.pid(), SIGSTOP);
  ::kill(pid_of(run, 1), SIGKILL);
  const std::string told = told_in_the_end(run, "is dead");
  CHECK_THAT(told, Catch::Contains("node 1") && Catch::Contains("is dead"));
  CHECK_THAT(told, Catch::Contains(fmt::format("kill -CONT {}", process.pid())));
  process.signal_group(SIGKILL);
  process.wait();
  CHECK_THAT(ask_why(run), Catch::Contains("no process of this run lives any more; continue with: "));
}

TEST_CASE("a real handler that never returns is named", "[why]") {
  const test::Folder folder;
  fs::create_directories(folder / "run");
  const test::StuckProcess process(folder / "run");
  Config config;
  Explanation why;
  for (int i = 0; i < 100 && why.kind != RootKind::handler; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    why = explain(config, read_boards(folder / "run", 1), {monotonic_us(), "troupe train"});
  }
  CHECK_THAT(why.root, Catch::StartsWith("loader 0 (node 0) has been handling StartStep from conductor 0 for "));
  REQUIRE(why.links.size() == 1);
  CHECK_THAT(why.links.front(), Catch::StartsWith("conductor 0 (node 0) waits for the plan of the step of step 7"));
}

TEST_CASE("a run in one process is asked about too; one that is over, unstarted or none says so", "[why]") {
  const test::Folder folder;
  const std::string run = folder / "run";
  {
    test::Process process(test::troupe_command(test::tiny_run(run, {"train.steps=100000"})), 60'000);
    REQUIRE(process.follow([&] { return !test::metrics_of(run, "step").empty(); }));
    ::kill(process.pid(), SIGSTOP);
    CHECK_THAT(told_in_the_end(run, "is stopped"),
               Catch::Contains(fmt::format("node 0 (process {}) is stopped", process.pid())));
  }
  const std::string whole = folder / "whole", unstarted = folder / "unstarted";
  CHECK(test::troupe(test::tiny_run(whole, {"train.steps=2"})).code == 0);
  CHECK_THAT(ask_why(whole), Catch::Contains("the run is finished, at step 2"));
  CHECK(test::metrics_of(whole, "stall").empty());
  fs::create_directories(unstarted);
  fs::copy_file(whole + "/config.toml", unstarted + "/config.toml");
  CHECK_THAT(ask_why(unstarted), Catch::Contains("no process of this run has started"));
  const test::Ended none = test::troupe({"why", folder / "nothing"});
  CHECK(none.code == 1);
  CHECK_THAT(none.err, Catch::Contains("not a run's folder"));
}
