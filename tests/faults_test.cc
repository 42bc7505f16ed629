// Fault files, what overrides do to a drawn world, and shrinking.
#include <filesystem>

#include "kernels/base/error.h"
#include "launcher/simulation/shrink.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

ScenarioOptions with(const std::vector<std::string>& faults, const std::vector<std::string>& sets = {}) {
  return {.base = {}, .losses = true, .faults = load_faults("", faults), .sets = sets};
}

std::string refusal(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    faults_from_text(text, "storm.toml", sets);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every fault file that is shipped can be read", "[sim]") {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TROUPE_SOURCE_DIR "/configs/faults")) {
    CHECK_NOTHROW(load_faults(entry.path().string(), {}));
    ++count;
  }
  CHECK(count >= 3);
}

TEST_CASE("a fault file says where it is wrong", "[sim]") {
  CHECK(refusal("[network]\ndrop.chance = 1\n") == "");
  CHECK(refusal("[network]\ndrop.chanse = 1\n") ==
        "storm.toml:2: network.drop.chanse is not a key of a fault file, did you mean network.drop.chance");
  CHECK(refusal("\n[network]\ndrop.chance = 2\n") == "storm.toml:3: network.drop.chance is 2, must be 0..1");
  CHECK(refusal("[network]\ndrop.chance = true\n") == "storm.toml:2: network.drop.chance must be a number");
  CHECK(refusal("network = 1\n") == "storm.toml:1: network is a value, must be a table");
  CHECK(refusal("[network]\ndrop.from = 0.2\n") ==
        "storm.toml: network.drop.from is 0.2, must be at most 0.05 (network.drop.to)");
  CHECK_THAT(refusal("[network\n"), Catch::Contains("storm.toml:1:") && Catch::Contains("not TOML"));
  CHECK(refusal("", {"network.drop.chance"}) == "--fault network.drop.chance: must be KEY=VALUE");
  CHECK(refusal("", {"disk.slow.chance=7"}) == "--fault disk.slow.chance=7: disk.slow.chance is 7, must be 0..1");
}

TEST_CASE("a fault that is taken away leaves all others as they were", "[sim]") {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const Scenario full = draw_scenario(seed, with({}));
    const Scenario less = draw_scenario(seed, with({"network.drop.chance=0", "nodes.slow.chance=0"}));
    INFO("seed " << seed);
    CHECK(less.world.network.drop == 0);
    CHECK(less.world.network.duplicate == full.world.network.duplicate);
    CHECK(less.world.network.latency_us == full.world.network.latency_us);
    CHECK(less.world.network.cuts.size() == full.world.network.cuts.size());
    CHECK(less.world.disk.job_us == full.world.disk.job_us);
    REQUIRE(less.losses.size() == full.losses.size());
    for (std::size_t i = 0; i < full.losses.size(); ++i) {
      CHECK(less.losses[i].after_messages == full.losses[i].after_messages);
      CHECK(less.losses[i].node == full.losses[i].node);
    }
    for (const SimDeviceOptions& device : less.world.devices) CHECK(device.slow.empty());
  }
}

TEST_CASE("a drawn layout is overridden, and an impossible one refused", "[sim]") {
  CHECK(draw_scenario(3, with({}, {"layout.nodes=1", "train.steps=2"})).config.layout.nodes == 1);
  CHECK(draw_scenario(3, with({}, {"layout.nodes=1", "train.steps=2"})).config.train.steps == 2);
  CHECK_THROWS_AS(draw_scenario(3, with({}, {"layout.replicas=3"})), Error);
}

TEST_CASE("a world is shrunk to what its law needs to break, and the flags make that world again", "[sim]") {
  const auto broken = [](const Overrides& o) -> std::string {
    ScenarioOptions how = with(o.faults, o.sets);
    how.losses = o.losses;
    const Scenario s = draw_scenario(2, how);
    if (s.config.layout.nodes < 2 || s.config.train.steps < 2) return "";
    if (!s.losses.empty()) return "another law: no node may die";
    return fmt::format("step {} is missing in /tmp/{}", s.config.train.steps, s.config.layout.nodes);
  };
  const Shrunk small = shrink({.losses = false, .faults = {}, .sets = {"layout.nodes=4"}}, broken);
  CHECK(small.broken == "step 2 is missing in /tmp/2");
  CHECK(broken(small.overrides) == small.broken);
  const std::string flags = to_flags(small.overrides);
  CHECK_THAT(flags, Catch::Contains("--set 'layout.nodes=2'") && Catch::Contains("--set 'train.steps=2'"));
  CHECK_THAT(flags, Catch::Contains("--fault network.drop.chance=0") && !Catch::Contains("layout.nodes=4"));
  CHECK_THAT(flags, !Catch::Contains("--losses"));
}

TEST_CASE("a law is the same law in another world", "[sim]") {
  CHECK(law_of("step 3 is missing") == law_of("step 1 is missing"));
  CHECK(law_of("/dev/shm/a/step-3: the manifest does not name state.json") ==
        law_of("/tmp/b/step-1: the manifest does not name state.json"));
  CHECK(law_of("it made no end; owed: nothing") != law_of("it comes to no rest; owed: mail"));
}
