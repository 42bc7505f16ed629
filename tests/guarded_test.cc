// No actor touches device memory but through segments: whole runs on a device whose memory is closed to everybody else
// have the bits of runs on an open one.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/log.h"
#include "kernels/cpu/device.h"
#include "kernels/op_tensors.h"
#include "launcher/config.h"
#include "launcher/simulation/scenario.h"
#include "launcher/train.h"
#include "launcher/world.h"
#include "tests/support/guarded_device.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;
using troupe::test::Folder;
using troupe::test::guarded;
using troupe::test::guarded_together;
using troupe::test::GuardedDevice;
using troupe::test::GuardedTogether;

namespace {

using Sets = std::vector<std::string>;

// What a run says that hangs on its numbers, and the weights that it ends with.
struct Outcome {
  std::vector<std::string> said;
  std::string weights;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  out << "weights " << outcome.weights;
  for (const std::string& line : outcome.said) out << "\n  " << line;
  return out;
}

void hear(Outcome& outcome, const Report& report) {
  if (report.kind == "checkpoint") return;  // told when the disk is done
  nlohmann::json said = nlohmann::json::parse(report.json);
  nlohmann::json kept{{"kind", report.kind}};
  for (const char* key : {"step", "version", "loss", "mtp_loss", "balance_loss", "gradient_norm", "right", "answers"})
    if (said.contains(key)) kept[key] = said[key];
  outcome.said.push_back(kept.dump());
}

Config tiny(const Sets& sets) {
  Sets all{"train.steps=4",
           "device.threads=2",
           "evaluate.every_steps=2",
           "evaluate.exact_match_problems=4",
           "data.arithmetic_digits=1",
           "checkpoint.every_steps=2"};
  all.insert(all.end(), sets.begin(), sets.end());
  return load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", all);
}

WorldOptions options_of(const Config& config, const std::string& folder, bool is_guarded) {
  std::filesystem::create_directories(folder + "/checkpoints");
  std::filesystem::create_directories(folder + "/boards");
  WorldOptions options;
  options.run_folder = folder;
  options.corpus = open_corpus(config);
  if (is_guarded) options.front = guarded;
  return options;
}

// Goes on from the folder's last checkpoint, if there is one.
Outcome train(const Config& config, const std::string& folder, bool is_guarded) {
  start_log("guarded_test", "", LogLevel::warning);
  Outcome outcome;
  const WorldOptions options = options_of(config, folder, is_guarded);
  {
    World world(config, options);
    world.recover(starting_point(config, folder, true));
    world.run([&](const Report& report) { hear(outcome, report); });
  }
  outcome.weights = weights_digest(resolve_checkpoint(folder));
  return outcome;
}

void expect_same(const Sets& sets) {
  const Folder open, closed;
  const Config config = tiny(sets);
  INFO(nlohmann::json(sets).dump());
  CHECK(train(config, closed / "run", true) == train(config, open / "run", false));
}

// All worlds of a kind; each is held to the bits of an undisturbed one on an open device. carried: what only ops read
// stays in device memory from node to node, too. streams: words come before their segments are computed.
void check_worlds(std::uint64_t count, bool losses, bool rollouts, bool carried = false, bool streams = false) {
  Simulator simulator(fmt::format("/dev/shm/troupe-guarded-test-{}", ::getpid()));
  for (std::uint64_t seed = 1; seed <= count; ++seed) {
    Scenario scenario =
        draw_scenario(seed, {.base = {}, .losses = losses, .rollouts = rollouts, .faults = {}, .sets = {}});
    const GuardedTogether together = guarded_together();
    const auto guard = [&](Scenario& one) {
      one.world.front = together.front;
      if (carried) one.world.network.device_copy = together.copy;
      if (!streams) return;
      one.config.device.threads = 1;
      for (SimDeviceOptions& device : one.world.devices)
        device.servers = 1, device.stream = true, device.compute_at = ComputeAt::end;
    };
    guard(scenario);
    if (scenario.sequel) {
      Scenario sequel = *scenario.sequel;
      guard(sequel);
      scenario.sequel = std::make_shared<const Scenario>(std::move(sequel));
    }
    const WorldResult result = simulator.run(scenario);
    INFO(describe(scenario));
    CHECK(result.broken == "");
    const bool travels = carried && scenario.config.layout.nodes > 1 && !scenario.sequel;
    if (travels && scenario.world.devices.at(0).memory) CHECK(*together.copied > 0);
  }
}

// Keeps what it is given to send.
struct Kept final : Transport {
  bool carries = true;
  std::vector<Frame> sent;
  std::string local_address() const override { return ""; }
  void connect(std::uint32_t, const std::string&) override {}
  bool carries_device_memory(std::uint32_t) const override { return carries; }
  void send(std::uint32_t, Frame frame) override { sent.push_back(std::move(frame)); }
  bool poll(const std::function<void(Frame)>&) override { return false; }
  bool arm() override { return true; }
  int wake_fd() const override { return -1; }
  void forget(std::uint32_t) override {}
};

// The signal that ends a process which does this.
int signal_of(const std::function<void()>& act) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGSEGV, SIG_DFL);
    act();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

}  // namespace

TEST_CASE("whoever touches guarded memory dies, ops and shared memory aside", "[guarded]") {
  CpuDevice own(0);
  GuardedDevice device(own);
  const Memory closed = device.allocate(5000, Place::device), open = device.allocate(5000, Place::shared);
  auto* const values = static_cast<float*>(closed.data);
  auto* const seen = static_cast<float*>(open.data);
  CHECK(signal_of([&] { values[1249] = 1; }) == SIGSEGV);
  CHECK(signal_of([&] { seen[0] = values[0]; }) == SIGSEGV);
  CHECK(signal_of([&] { seen[0] = 1; }) == 0);
  const Tensor all{values, 1, 1250, 1250, Dtype::f32}, last{values + 1249, 1, 1, 1, Dtype::f32};
  device.submit({{}, {Fill{all, 3}, Copy{last, Tensor{seen, 1, 1, 1, Dtype::f32}}}, {}, 0});
  CHECK(device.pending() == 0);
  CHECK(seen[0] == 3);
}

TEST_CASE("every tensor of every op is visited", "[guarded]") {
  const auto check_one = []<typename One>(One one) {
    Op op = std::move(one);
    std::size_t visited = 0;
    for_each_tensor(op, [&](Tensor&) { ++visited; });
    // An op has no more bytes of numbers; a grouped product's matrices are lists.
    const std::size_t numbers = std::is_same_v<One, GroupedProduct> ? 120 : std::is_same_v<One, AdamW> ? 40 : 32;
    CHECK(visited > 0);
    CHECK(sizeof(One) - visited * sizeof(Tensor) <= numbers);
  };
  const auto check = [&]<typename... Ones>(std::variant<Ones...>*) { (check_one(Ones{}), ...); };
  check(static_cast<Op*>(nullptr));
}

TEST_CASE("training with experts, on any layout of one process, touches device memory through segments alone",
          "[guarded]") {
  expect_same({});
  expect_same({"layout.stages=3", "layout.expert_shards=2", "model.aux_loss_alpha=0.001"});
  expect_same({"layout.replicas=4", "layout.stages=2", "layout.expert_shards=4", "train.dtype=bfloat16"});
  expect_same({"train.recompute=true", "layout.stash_factor=0", "train.dtype=bfloat16"});
}

TEST_CASE("tied embeddings and multi-token prediction touch device memory through segments alone", "[guarded]") {
  const Sets both{"model.tie_word_embeddings=true", "model.num_nextn_predict_layers=1"};
  for (const Sets& layout : {Sets{}, {"layout.stages=2", "layout.replicas=2", "train.dtype=bfloat16"}}) {
    Sets sets = both;
    sets.insert(sets.end(), layout.begin(), layout.end());
    expect_same(sets);
  }
  expect_same({"model.num_nextn_predict_layers=1", "layout.stages=2"});
  expect_same({"model.model_type=qwen2", "model.num_attention_heads=4", "model.num_key_value_heads=2"});
}

TEST_CASE("a run that was saved and is resumed on a guarded device ends with the bits of one that went on",
          "[guarded]") {
  const Folder open, closed;
  const Config half = tiny({"train.steps=2", "train.dtype=bfloat16"}), whole = tiny({"train.dtype=bfloat16"});
  train(half, closed / "run", true);
  const Outcome resumed = train(whole, closed / "run", true);
  CHECK(resumed.weights == train(whole, open / "run", false).weights);
}

TEST_CASE("evaluation and generation by a tool touch device memory through segments alone", "[guarded]") {
  const Folder folder;
  Config config = tiny({});
  train(config, folder / "run", false);
  const auto tool = [&](RunMode mode, bool is_guarded) {
    Config own = config;
    own.train.steps = 0;
    Outcome outcome;
    GenerationResult written;
    WorldOptions options;
    options.mode = mode;
    options.corpus = open_corpus(own);
    options.request = {
        .prompts = {{'1', '+', '2', '='}, {'4'}}, .temperature = 1, .tokens_max = 6, .want_logits = true};
    options.sink = &written;
    if (is_guarded) options.front = guarded;
    World world(own, options);
    Recover begin;
    begin.path = resolve_checkpoint(folder / "run");
    begin.weights_only = true;
    world.recover(begin);
    world.run([&](const Report& report) { hear(outcome, report); },
              [&] { return mode == RunMode::generate && written.done; });
    for (std::size_t i = 0; i < written.tokens.size(); ++i)
      outcome.said.push_back(nlohmann::json{written.tokens[i], written.logprobs[i], written.logits[i]}.dump());
    return outcome;
  };
  for (const RunMode mode : {RunMode::evaluate, RunMode::generate}) {
    const Outcome outcome = tool(mode, true);
    CHECK(!outcome.said.empty());
    CHECK(outcome == tool(mode, false));
  }
}

TEST_CASE("rows between actors of one node of a simulated world lie on closed memory", "[guarded][sim]") {
  const Folder folder;
  const Config config = tiny({"train.steps=1", "evaluate.exact_match_problems=0"});
  std::filesystem::create_directories(folder / "run/checkpoints");
  SimWorldOptions options;
  options.run_folder = folder / "run";
  options.corpus = open_corpus(config);
  options.devices.resize(1);
  options.front = guarded;
  SimWorld world(config, options);
  world.start({});
  REQUIRE(world.run_until([&] { return world.finished(); }, 600'000'000));
  CHECK(world.bytes_peak().at(0).device >= 64 * 2 * 32 * 4);  // a microbatch's, to two experts
}

TEST_CASE(
    "what was made in device memory for a lost process isn't sent to one that it doesn't reach, and misses nowhere",
    "[guarded][device]") {
  CpuDevice device(0);
  PayloadPool shared, on_device(PayloadPool::process_memory, true);
  Kept transport;
  Node node(0, 1, {.device = &device, .pool = &shared, .transport = &transport, .device_pool = &on_device});
  constexpr Address kHere{Role::stage, 0}, kThere{Role::stage, 1}, kNowhere{Role::stage, 2};
  node.place(kHere, 0);
  node.place(kThere, 1);
  node.connect(1, 1, "", 0);
  CHECK(node.device_reaches(kThere));
  CHECK_FALSE(node.device_reaches(kNowhere));
  const Message made = SharedTensor{.version = 1, .attempt = 0, .values = on_device.take(100)};
  node.post(kHere, kThere, made);
  REQUIRE((transport.sent.size() == 1 && transport.sent[0].device.size() == 1));
  node.connect(1, 2, "", 0);
  transport.carries = false;
  CHECK_FALSE(node.device_reaches(kThere));
  node.post(kHere, kThere, made);
  CHECK(transport.sent.size() == 1);
  node.post(kHere, kThere, SharedTensor{.version = 1, .attempt = 0, .values = shared.take(100)});
  REQUIRE((transport.sent.size() == 2 && transport.sent[1].device.empty()));
  std::string problem;
  CHECK(decode(transport.sent[1], problem)->link.sequence == 1);
}

TEST_CASE("simulated worlds on guarded devices keep every law and their bits, through all losses", "[guarded][sim]") {
  check_worlds(60, false, false);
  check_worlds(60, true, false);
}

TEST_CASE("what only ops read travels between simulated nodes in closed memory, through all faults and losses",
          "[guarded][sim][device]") {
  check_worlds(60, false, false, true);
  check_worlds(60, true, false, true);
  check_worlds(20, true, true, true);
}

TEST_CASE("who hears early that a segment is done relies on nothing that it reads or writes, through all losses",
          "[guarded][sim][device]") {
  check_worlds(100, false, false, false, true);
  check_worlds(100, true, false, true, true);
  check_worlds(40, true, true, true, true);
}

TEST_CASE("reinforcement with a reference and a lag keeps its bits on guarded devices, through all losses",
          "[guarded][sim]") {
  check_worlds(40, false, true);
  check_worlds(40, true, true);
}
