// A simulated world that a person goes through: forward, back, to a condition, with what strikes it.
#include "launcher/inspect/simulated_world.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "tests/support/catch.h"

using namespace troupe;

namespace {

SimulatedOptions two_nodes(std::uint64_t seed = 3) {
  return {TROUPE_SOURCE_DIR "/configs/tiny.toml",
          {"train.steps=4", "layout.nodes=2", "layout.expert_shards=2", "device.threads=1",
           "evaluate.exact_match_problems=0"},
          seed};
}

constexpr Control kStep{.what = Control::Do::step};

Control run(std::uint64_t messages) { return {.what = Control::Do::run, .messages = messages}; }
Control back(std::uint64_t messages) { return {.what = Control::Do::back, .messages = messages}; }

void run_to_end(SimulatedWorld& world) {
  for (int tries = 0; tries < 100; ++tries)
    if (world.control(run(100'000)).find("is over") != std::string::npos) return;
  FAIL("it made no end");
}

const Envelope& under_way(const View& view, const std::string& kind) {
  for (const Envelope& e : view.in_flight)
    if (kind_of(e.message) == kind) return e;
  FAIL("no " << kind << " is under way");
  return view.in_flight.front();
}

}  // namespace

TEST_CASE("a step is one message, and as many back lead to the same world", "[simulated]") {
  SimulatedWorld world(two_nodes());
  CHECK(world.messages() == 0);
  CHECK(world.look().healthy);
  for (std::uint64_t i = 1; i <= 50; ++i) {
    CHECK(world.control(kStep).find("1 message handled") == 0);
    REQUIRE(world.messages() == i);
  }
  const std::uint64_t hash = world.log_hash();
  CHECK(world.look().delivered == 50);
  world.control(run(20));
  CHECK(world.log_hash() != hash);
  CHECK(world.control(back(20)).find("back at message 50") == 0);
  CHECK(world.log_hash() == hash);
  world.control(back(1000));
  CHECK(world.messages() == 0);
}

TEST_CASE("a world runs until a step, a time, or a message that an actor gets", "[simulated]") {
  SimulatedWorld world(two_nodes());
  Control control{.what = Control::Do::run};
  control.receiver = Address{Role::expert_shard, 1};
  control.receives = "ExpertBatch";
  world.control(control);
  const View view = world.look();
  const auto journals = world.journals(10);
  CHECK(view.delivered > 10);
  control = {.what = Control::Do::run};
  control.until_step = 2;
  world.control(control);
  CHECK(world.look().step == 2);
  control = {.what = Control::Do::run};
  control.until_seconds = static_cast<double>(world.look().now_us) * 1e-6 + 0.0005;
  world.control(control);
  CHECK(static_cast<double>(world.look().now_us) * 1e-6 >= *control.until_seconds);
  run_to_end(world);
  CHECK(world.look().step == 4);
  CHECK(world.look().figures.finished);
}

TEST_CASE("what is dropped between nodes is sent again, and what a node loses is named by why", "[simulated]") {
  SimulatedWorld world(two_nodes());
  Control until{.what = Control::Do::run};
  until.receiver = Address{Role::stage, 0};
  until.receives = "TokenBatch";
  world.control(until);
  for (int i = 0; i < 2000; ++i) {
    const View view = world.look();
    bool there = false;
    for (const Envelope& e : view.in_flight) there |= std::string(kind_of(e.message)) == "ExpertBatch";
    if (there) break;
    world.control(kStep);
  }
  Control drop{.what = Control::Do::drop};
  drop.id = under_way(world.look(), "ExpertBatch").id;
  CHECK(world.control(drop).find("dropped") != std::string::npos);
  CHECK(!world.look().tainted.empty());
  Control later{.what = Control::Do::run};
  later.until_seconds = static_cast<double>(world.look().now_us) * 1e-6 + 20;
  for (int tries = 0; tries < 50 && world.look().healthy; ++tries) world.control(later);
  const View stalled = world.look();
  CHECK(!stalled.healthy);
  CHECK(stalled.why.kind == RootKind::lost);
  CHECK(stalled.why.root.find("ExpertBatch") != std::string::npos);
}

TEST_CASE("a node that is killed comes back, and the world ends as it would have", "[simulated]") {
  SimulatedWorld plain(two_nodes()), struck(two_nodes());
  run_to_end(plain);
  Control until{.what = Control::Do::run};
  until.until_step = 1;
  struck.control(until);
  CHECK(struck.control({.what = Control::Do::kill, .node = 1}).find("is dead") != std::string::npos);
  const View dead = struck.look();
  CHECK(!dead.healthy);
  CHECK(dead.nodes.size() == 2);
  run_to_end(struck);
  CHECK(struck.look().healthy);
  CHECK(struck.look().figures.step["loss"] == plain.look().figures.step["loss"]);
  const std::uint64_t at = struck.messages(), hash = struck.log_hash();
  struck.control(back(1));
  struck.control(kStep);
  CHECK((struck.messages() == at && struck.log_hash() == hash));
}

TEST_CASE("a message that comes twice is no harm: the world ends as it would have, and is marked", "[simulated]") {
  SimulatedWorld plain(two_nodes());
  run_to_end(plain);
  for (const std::string kind : {"ExpertResult", "ExpertBatch", "Vote"}) {
    SimulatedWorld world(two_nodes());
    const auto find = [&]() -> std::optional<std::uint64_t> {
      for (const Envelope& e : world.look().in_flight)
        if (kind_of(e.message) == kind) return e.id;
      return std::nullopt;
    };
    for (int i = 0; i < 2000 && !find(); ++i) world.control(kStep);
    REQUIRE(find());
    Control twice{.what = Control::Do::inject};
    twice.id = *find();
    CHECK(world.control(twice).find("repeated") != std::string::npos);
    run_to_end(world);
    CHECK(world.look().figures.step["loss"] == plain.look().figures.step["loss"]);
    CHECK(!world.look().tainted.empty());
    CHECK_THROWS_AS(world.control(twice), Error);  // it is not under way any more
  }
}

TEST_CASE("a world may be gone through from any thread, to and fro", "[simulated]") {
  SimulatedWorld world(two_nodes());
  world.control(run(100));
  std::thread([&] { CHECK(world.control(back(1)).find("back at message 99") == 0); }).join();
  CHECK(world.control(kStep).find("1 message handled") == 0);
}

TEST_CASE("a program's error in a world ends the world alone", "[simulated]") {
  SimulatedWorld world(two_nodes());
  CHECK_THROWS(check_failed("file", 1, "condition", "a sentence"));
}
