// Rehearsals: worlds in virtual time whose segments and loops last as long as they took to compute here.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/blocks.h"
#include "kernels/cpu/memory.h"
#include "kernels/sim/device.h"
#include "launcher/config.h"
#include "launcher/interrupts.h"
#include "launcher/loop.h"
#include "launcher/plan.h"
#include "launcher/simulation/begin.h"
#include "launcher/simulation/laws.h"
#include "launcher/simulation/rehearsal.h"
#include "launcher/simulation/short_corpus.h"
#include "launcher/simulation/sim_world.h"

#include "tests/support/catch.h"

using namespace troupe;
namespace fs = std::filesystem;

namespace {

struct Folder {
  std::string path = fmt::format("/dev/shm/troupe-rehearsal-test-{}", ::getpid());
  ~Folder() { fs::remove_all(path); }
};

Config tiny(const std::vector<std::string>& sets) {
  std::vector<std::string> all = {"train.steps=6", "evaluate.exact_match_problems=8", "device.kind=\"cpu\"",
                                  "device.threads=1"};
  all.insert(all.end(), sets.begin(), sets.end());
  return load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", all);
}

Rehearsal rehearsed(const Config& config, const Folder& folder, int cores = 2) {
  RehearsalOptions options;
  options.config = config;
  options.steps = 6;
  options.cores = cores;
  options.nodes_a_machine = config.layout.nodes;
  options.scratch = folder.path;
  return rehearse(options);
}

std::string digest_in(const std::string& folder) { return weights_digest(resolve_checkpoint(folder)); }

// Four large products, and what they took.
Segment products(const Memory& memory, std::int64_t n) {
  const auto at = [&](std::int64_t i) {
    return Tensor{static_cast<float*>(memory.data) + i * n * n, n, n, n, Dtype::f32};
  };
  Segment segment;
  for (int i = 0; i < 4; ++i) segment.ops.push_back(Product{.a = at(0), .b = at(1), .c = at(2)});
  return segment;
}

// The virtual end of a world's last step.
std::int64_t lasts_us(const Config& config, const HostOptions& hosts, const std::string& folder) {
  fs::create_directories(folder + "/checkpoints");
  SimWorldOptions options;
  options.run_folder = folder;
  options.corpus = corpus_of(config);
  options.hosts = hosts;
  for (int node = 0; node < config.layout.nodes; ++node) {
    SimDeviceOptions device;
    device.timed_ns = thread_time_ns;
    options.devices.push_back(device);
  }
  SimWorld world(config, std::move(options));
  world.start({});
  REQUIRE(world.run_until([&] { return world.finished(); }, 1'000'000'000'000));
  return world.now_us();
}

}  // namespace

TEST_CASE("a rehearsal computes the run's own numbers, on any layout", "[rehearsal]") {
  const Folder folder;
  rehearsed(tiny({}), folder);
  const std::string digest = digest_in(folder.path + "/0");
  rehearsed(tiny({"layout.nodes=2", "layout.stages=2", "layout.expert_shards=2", "device.threads=2"}), folder);
  CHECK(digest_in(folder.path + "/0") == digest);
  CHECK(digest_in(folder.path + "/1") == digest);  // of a companion
}

TEST_CASE("a timed segment lasts as long as computing it took", "[rehearsal]") {
  SimDevice device({.timed_ns = thread_time_ns});
  const std::int64_t n = 128;
  const Memory memory = device.allocate(static_cast<std::size_t>(3 * n * n) * 4, Place::device);
  device.submit(products(memory, n));
  device.advance(100);
  const std::int64_t us = device.next_us() - 100;
  CHECK(us == device.computed_ns() / 1000);
  CHECK(us > 4 * 2 * n * n * n / 1'000'000);  // no core does a thousand GFLOP/s
  device.advance(100 + us);
  std::vector<Completion> done;
  device.take_completions(done);
  CHECK(done.size() == 1);
}

TEST_CASE("a server that shares its core takes longer for what is left, and what comes", "[rehearsal]") {
  SimDevice device({.lasts_us = [](const Segment&) { return 100; }});
  device.submit({});
  device.advance(0);
  device.set_pace(40, 2);
  CHECK(device.next_us() == 160);
  device.set_pace(100, 1);
  CHECK(device.next_us() == 130);
  device.hold_up(7, 0);
  CHECK(device.next_us() == 137);
}

TEST_CASE("a world takes longer where cores go to loops and back, and where nodes share a core", "[rehearsal]") {
  const Folder folder;
  const Config config = tiny({"layout.nodes=2", "layout.stages=2", "evaluate.exact_match_problems=0"});
  const auto lasts = [&](std::size_t cores, HostOptions hosts) {
    hosts.cores.cores = cores;
    return lasts_us(config, hosts, folder.path + "/world");
  };
  const std::int64_t apart = lasts(8, {.nodes_a_host = 1}), together = lasts(1, {.nodes_a_host = 2});
  CHECK(lasts(1, {.nodes_a_host = 1, .switch_us = 5000}) > 2 * apart);
  CHECK(together > apart * 11 / 10);
  CHECK(lasts(8, {.nodes_a_host = 1, .wake_us = 5000}) > 2 * apart);
  const HostOptions late{.nodes_a_host = 2, .late_share = 1, .late_us = 20'000};
  CHECK(lasts(8, late) < 2 * apart);  // nobody waits for a core
  CHECK(lasts(1, late) > 2 * together);
}

TEST_CASE("a rehearsed step is longer by the way of its messages", "[rehearsal]") {
  const Folder folder;
  const std::vector<std::string> two = {"layout.nodes=2", "layout.expert_shards=2"};
  std::vector<std::string> far = two;
  far.emplace_back("link.delay_ms=10");
  const double near_s = rehearsed(tiny(two), folder).quantile(0.5), far_s = rehearsed(tiny(far), folder).quantile(0.5);
  CHECK(far_s > near_s + 0.04);  // there and back, forward and backward
  CHECK(near_s < 0.04);
}

TEST_CASE("a rehearsal comes to its end when its time is over, and when it is interrupted", "[rehearsal]") {
  const Folder folder;
  RehearsalOptions options;
  options.config = tiny({"train.steps=100000"});
  options.steps = 100'000;
  options.seconds_max = 0.5;
  options.scratch = folder.path;
  const Rehearsal short_one = rehearse(options);
  CHECK(short_one.step_seconds.size() > 2);
  CHECK(short_one.took_s < 10);
  CHECK(short_one.early);
  std::atomic<int> asked = 0;
  options.interrupted = [&] { return ++asked > 100; };
  CHECK_THROWS_AS(rehearse(options), Interrupted);
}

TEST_CASE("memory counts as taken where a page is there", "[rehearsal]") {
  constexpr std::size_t kSize = 64 << 20, kPage = std::size_t{2} << 20;
  const Memory memory = cpu::take_memory(kSize);
  Blocks blocks;
  blocks.add(memory.data, kSize);
  CHECK(blocks.resident() == 0);
  auto* const bytes = static_cast<char*>(memory.data);
  bytes[5] = bytes[kSize / 2] = 1;
  CHECK(blocks.resident() >= 2 * 4096);
  CHECK(blocks.resident() <= 2 * kPage);
  std::fill_n(bytes, kSize, 1);
  CHECK(blocks.resident() == kSize);
  blocks.remove(memory.data);
  CHECK(blocks.resident() == 0);
}

TEST_CASE("a rehearsal's memory is what was touched, and less than the plan's", "[rehearsal]") {
  const Folder folder;
  const Config config = tiny({"layout.nodes=2", "layout.replicas=2", "inspect.journal_mib=1"});
  const Rehearsal rehearsal = rehearsed(config, folder);
  REQUIRE(rehearsal.nodes.size() == 2);
  const Plan plan = make_plan(config, 0);
  for (std::size_t node = 0; node < 2; ++node) {
    INFO("node " << node);
    CHECK(rehearsal.nodes[node].actors < plan.nodes[node].actors + plan.nodes[node].messages + (std::size_t{8} << 20));
    CHECK(rehearsal.nodes[node].actors > plan.nodes[node].actors / 4);
    CHECK(rehearsal.nodes[node].journal <= std::size_t{1} << 20);
  }
}

TEST_CASE("what waits between stages while all is evaluated doesn't grow with how much that is", "[rehearsal]") {
  const Folder folder;
  const auto held = [&](int microbatches) {
    const Config config =
        tiny({"layout.nodes=3", "layout.stages=3", "train.steps=1", "evaluate.exact_match_problems=0"});
    fs::create_directories(folder.path + "/checkpoints");
    SimWorldOptions options;
    options.run_folder = folder.path;
    options.corpus = std::make_shared<ShortCorpus>(corpus_of(config), microbatches);
    options.devices.resize(3);
    options.devices[1].flops_per_us = 50;  // slower than the first stage, which has no experts
    options.disk.bytes_per_us = 1e6;
    SimWorld world(config, std::move(options));
    world.start({});
    REQUIRE(world.run_until([&] { return world.finished(); }, 1'000'000'000'000));
    fs::remove_all(folder.path);
    return world.bytes_peak().at(0).shared;
  };
  const std::size_t few = held(8), many = held(80);
  CAPTURE(few, many);
  CHECK(many < few + 4096);
}
