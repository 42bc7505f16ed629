// Simulated worlds, and the simulated parts that they are made of. A failing seed prints the command that replays it.
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/sim_disk.h"
#include "kernels/base/mutant.h"
#include "kernels/sim/device.h"
#include "launcher/simulation/scenario.h"
#include "messages/codec.h"
#include "messages/sim_network.h"

#include "tests/support/catch.h"

using namespace troupe;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

std::string scratch_name() { return fmt::format("/dev/shm/troupe-simulation-test-{}", ::getpid()); }

struct Scratch {
  std::string path = scratch_name() + "-disk";
  Scratch() { fs::create_directories(path + "/checkpoints"); }
  ~Scratch() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

Payload payload(const std::string& bytes) {
  Payload made{std::shared_ptr<std::byte>(new std::byte[bytes.size()], std::default_delete<std::byte[]>()),
               bytes.size()};
  std::memcpy(made.data.get(), bytes.data(), bytes.size());
  return made;
}

void check_worlds(std::uint64_t first, std::uint64_t count, const ScenarioOptions& options) {
  Simulator simulator(scratch_name());
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Scenario scenario = draw_scenario(seed, options);
    const WorldResult result = simulator.run(scenario);
    INFO(describe(scenario));
    INFO("replay: " << TROUPE_BINARY << " simulate --seed " << seed << (options.losses ? " --losses" : ""));
    CHECK(result.broken == "");
  }
}

}  // namespace

TEST_CASE("whatever the network does, a world keeps every law and has the bits of an undisturbed one", "[sim]") {
  check_worlds(1, 100, {});
}

TEST_CASE("nodes die and come back, and a world still has the bits of an undisturbed one", "[sim]") {
  check_worlds(1, 100, {.base = {}, .losses = true, .faults = {}, .sets = {}});
}

// An owner whose save a loss cut short copied its state once more while the first copy waited for the disk.
TEST_CASE("a save that is begun again after a loss holds no second copy", "[sim]") {
  for (const std::uint64_t seed : {3588, 3684, 7259, 9668})
    check_worlds(seed, 1, {.base = {}, .losses = true, .faults = {}, .sets = {}});
}

// Everybody had gone back to version 0 when the save of version 2 came to its end: the next loss found that file.
TEST_CASE("a run that was sent back to its beginning counts from there, whatever was saved meanwhile", "[sim]") {
  check_worlds(746, 1, {.base = {}, .losses = true, .faults = {}, .sets = {}});
}

TEST_CASE("a shard has room for every chunk that its credits let come, though its weight gradients lag", "[sim]") {
  // Two replicas of one slot: a stage is done with a microbatch before the shard has added the rows of its backward.
  check_worlds(3310, 1, {.base = {}, .losses = true, .faults = {}, .sets = {}});
}

TEST_CASE("the same seed makes the same world, another seed another", "[sim]") {
  Simulator simulator(scratch_name());
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    const WorldResult once = simulator.run(draw_scenario(seed, {})), again = simulator.run(draw_scenario(seed, {}));
    INFO("seed " << seed);
    CHECK(once.hash == again.hash);
    CHECK(once.virtual_us == again.virtual_us);
    CHECK(once.messages == again.messages);
    CHECK(once.digest == again.digest);
    CHECK(simulator.run(draw_scenario(seed + 16, {})).hash != once.hash);
  }
}

TEST_CASE("no mutant lives outside the build of the mutants", "[sim]") {
  STATIC_REQUIRE_FALSE(mutant(Mutant::chunks_by_arrival));
  // The build for arrival order picks these two by number (tests/arrival).
  STATIC_REQUIRE(static_cast<int>(Mutant::chunks_by_arrival) == 25);
  STATIC_REQUIRE(static_cast<int>(Mutant::microbatches_by_arrival) == 26);
  for (int number = 1; number < static_cast<int>(Mutant::count); ++number)
    CHECK_FALSE(mutant(static_cast<Mutant>(number)));
}

// ---- Device ---------------------------------------------------------------------------------------------------------

namespace {

// A sum of as many elements as `us` of the device below take.
Segment segment_of(double us, const SegmentKey& key, std::uint64_t token) {
  const auto count = static_cast<std::int64_t>(us * 1000 / 12);
  const Tensor x{nullptr, 1, count, count, Dtype::f32};
  return {key, {Add{x, x, x}}, {0, token}};
}

std::vector<std::uint64_t> finished(SimDevice& device) {
  std::vector<Completion> done;
  device.take_completions(done);
  std::vector<std::uint64_t> tokens;
  for (const Completion& one : done) tokens.push_back(one.token);
  return tokens;
}

}  // namespace

TEST_CASE("a simulated device runs as many segments as it has servers, the most urgent first", "[sim]") {
  SimDevice device({.servers = 2, .bytes_per_us = 1000, .numbers = false, .slow = {}, .before = {}});
  const SegmentKey late{SegmentClass::weight_gradient}, soon{SegmentClass::backward};
  device.submit(segment_of(120, late, 1));
  device.submit(segment_of(120, late, 2));
  device.advance(0);  // both servers are taken by what is there
  device.submit(segment_of(120, late, 3));
  device.submit(segment_of(120, soon, 4));
  device.advance(60);
  CHECK(finished(device).empty());
  CHECK(device.next_us() == 120);
  device.advance(120);
  CHECK(finished(device) == std::vector<std::uint64_t>{1, 2});
  CHECK(device.pending() == 2);
  device.advance(240);
  CHECK(finished(device) == std::vector<std::uint64_t>{4, 3});
  CHECK(device.pending() == 0);
  CHECK(device.next_us() == kNever);
}

TEST_CASE("a slow node's segments last longer while it is slow", "[sim]") {
  SimDevice device({.bytes_per_us = 1000, .numbers = false, .slow = {{0, 50, 10}}, .before = {}});
  device.submit(segment_of(12, {}, 1));
  device.advance(0);
  CHECK(device.next_us() == 120);
  device.advance(120);
  device.submit(segment_of(12, {}, 2));
  device.advance(120);
  CHECK(device.next_us() == 132);
}

// ---- Network --------------------------------------------------------------------------------------------------------

namespace {

Frame frame_of(const std::string& bytes) {
  Frame frame;
  frame.header.resize(4);
  frame.payloads = {payload(bytes)};
  return frame;
}

std::vector<std::string> arrived(Transport& transport) {
  std::vector<std::string> texts;
  transport.poll(
      [&](const Frame& frame) { texts.emplace_back(frame.payloads[0].as<const char>(), frame.payloads[0].size); });
  return texts;
}

}  // namespace

TEST_CASE("on a simulated link small frames overtake large ones, and large ones wait for each other", "[sim]") {
  SimNetwork network({.latency_us = 10, .bytes_per_us = 1, .small_bytes_max = 8, .cuts = {}});
  const auto a = network.attach(0, 1), b = network.attach(1, 1);
  a->connect(1, b->local_address());
  const std::string large(96, 'x');
  a->send(1, frame_of(large));
  a->send(1, frame_of(large));
  a->send(1, frame_of("ab"));
  CHECK(network.next_us() == 16);
  network.set_time(16);
  CHECK(arrived(*b) == std::vector<std::string>{"ab"});
  network.set_time(110);
  CHECK(arrived(*b).size() == 1);
  CHECK(network.next_us(1, 1) == 210);
  network.set_time(210);
  CHECK(arrived(*b).size() == 1);
  CHECK(network.next_us() == kNever);
}

TEST_CASE("frames to a dead node vanish, those that it had sent arrive, a cut link carries nothing", "[sim]") {
  SimNetwork network({.latency_us = 10, .cuts = {{1, 0, 100, 200}}});
  const auto a = network.attach(0, 1), b = network.attach(1, 1);
  a->connect(1, b->local_address());
  b->connect(0, a->local_address());
  b->send(0, frame_of("last words"));
  network.detach(1, 1);
  a->send(1, frame_of("too late"));
  CHECK(network.counters().vanished == 1);
  network.set_time(50);
  CHECK(arrived(*a) == std::vector<std::string>{"last words"});
  const auto next = network.attach(1, 2);
  next->connect(0, a->local_address());
  a->send(1, frame_of("to the dead incarnation still"));
  CHECK(network.counters().vanished == 2);
  network.set_time(150);
  next->send(0, frame_of("cut off"));
  network.set_time(200);
  next->send(0, frame_of("heard"));
  network.set_time(1000);
  CHECK(arrived(*a) == std::vector<std::string>{"heard"});
  CHECK(network.counters().cut == 1);
}

TEST_CASE("what a sender writes to a payload after sending it is seen by the receiver", "[sim]") {
  SimNetwork network({.latency_us = 10, .cuts = {}});
  const auto a = network.attach(0, 1), b = network.attach(1, 1);
  a->connect(1, b->local_address());
  const Frame frame = frame_of("frozen");
  a->send(1, frame);
  frame.payloads[0].as<char>()[0] = 'F';  // as a transport that reads it late would
  network.set_time(100);
  CHECK(arrived(*b) == std::vector<std::string>{"Frozen"});
}

// ---- Disk -----------------------------------------------------------------------------------------------------------

namespace {

// A checkpoint as the checkpointer writes it: two files in pieces, state, manifest, commit, then the older one goes.
void write_checkpoint(SimDisk& disk, const std::string& run, std::int64_t version, std::uint64_t token) {
  const std::string whole = run + "/checkpoints/" + checkpoint_name(version), partial = whole + ".partial";
  disk.make_folder(partial);
  disk.write_text(partial + "/model.safetensors", "header");
  disk.write(partial + "/model.safetensors", 6, payload(std::string(100, 'm')));
  disk.write(partial + "/optimizer.safetensors", 0, payload(std::string(200, 'o')));
  disk.write_text(partial + "/state.json", fmt::format("version {}", version));
  disk.run([partial] { write_manifest(partial, nlohmann::json::object()); });
  disk.commit_folder(partial, whole);
  disk.report(0, token);
}

std::int64_t newest_whole(const std::string& run) {
  auto all = list_checkpoints(run);
  while (!all.empty() && !verify_checkpoint(all.back().path, true).empty()) all.pop_back();
  return all.empty() ? -1 : all.back().version;
}

// Versions as told; the last outcome that came before the machine fell, if it fell.
std::uint64_t write_until_fall(SimDisk& disk, const std::string& run, const std::vector<std::int64_t>& versions) {
  for (std::size_t i = 0; i < versions.size(); ++i) write_checkpoint(disk, run, versions[i], i + 1);
  std::uint64_t told = 0;
  while (disk.next_us() != kNever || disk.jobs() > 0) {
    if (disk.fell()) break;
    disk.advance(disk.next_us() == kNever ? 0 : disk.next_us());
    std::vector<DiskOutcome> outcomes;
    disk.take_outcomes(outcomes);
    for (const DiskOutcome& one : outcomes) {
      CHECK(one.problem == "");
      told = one.token;
    }
  }
  return told;
}

}  // namespace

TEST_CASE("wherever the machine falls, the last checkpoint that was reported is whole", "[sim]") {
  for (const std::vector<std::int64_t>& versions : {std::vector<std::int64_t>{1, 2}, {1, 2, 2}, {2, 3, 2}}) {
    std::uint64_t primitives = 0;
    for (std::uint64_t fall = 0; fall <= primitives; ++fall) {
      for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        const Scratch run;
        SimDisk disk({.seed = seed, .root = run.path, .crash_at_primitive = fall});
        const std::uint64_t told = write_until_fall(disk, run.path, versions);
        if (fall == 0) primitives = disk.primitives();
        CHECK(disk.fell() == (fall > 0));
        disk.crash();
        INFO("fell at primitive " << fall << " of " << primitives << ", seed " << seed << ", told of " << told);
        std::int64_t expected = -1;
        for (std::size_t i = 0; i < told; ++i) expected = std::max(expected, versions[i]);
        CHECK(newest_whole(run.path) >= expected);
        SimDisk next({.seed = seed, .root = run.path});
        write_until_fall(next, run.path, {9});
        CHECK(newest_whole(run.path) == 9);
      }
    }
  }
}

TEST_CASE("a full disk is a problem reported, and the older checkpoint stays", "[sim]") {
  const Scratch run;
  SimDisk disk({.seed = 1, .root = run.path, .written_max = 500});
  write_checkpoint(disk, run.path, 1, 1);
  write_checkpoint(disk, run.path, 2, 2);
  std::vector<DiskOutcome> outcomes;
  disk.advance(0);
  while (disk.jobs() > 0) disk.advance(disk.next_us());
  disk.take_outcomes(outcomes);
  REQUIRE(outcomes.size() == 2);
  CHECK(outcomes[0].problem == "");
  CHECK_THAT(outcomes[1].problem, Catch::Contains("full"));
  CHECK(newest_whole(run.path) == 1);
  CHECK_FALSE(fs::exists(run / "checkpoints/step-00000002.partial"));
}
