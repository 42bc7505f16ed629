// Rollouts in simulated worlds: whatever strikes them, the same answers are sampled and the same weights learned; and
// weights that aren't what their update wrote are found before anybody learns from them.
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/rules/grpo.h"
#include "actors/rules/placement.h"
#include "actors/rules/trainable.h"
#include "actors/shadow.h"
#include "kernels/base/random.h"
#include "kernels/cpu/kernels.h"
#include "launcher/simulation/scenario.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

std::string scratch_name() { return fmt::format("/dev/shm/troupe-rollouts-test-{}", ::getpid()); }

void check_worlds(std::uint64_t first, std::uint64_t count, bool losses) {
  Simulator simulator(scratch_name());
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Scenario scenario =
        draw_scenario(seed, {.base = {}, .losses = losses, .rollouts = true, .faults = {}, .sets = {}});
    const WorldResult result = simulator.run(scenario);
    INFO(describe(scenario));
    INFO("replay: " << TROUPE_BINARY << " simulate --rollouts --seed " << seed << (losses ? " --losses" : ""));
    CHECK(result.broken == "");
  }
}

// How an update goes wrong on one node.
enum class Plant { skipped, half_applied, swapped, late, old_codes };
constexpr std::uint64_t kPlants = 5;
const char* name_of(Plant plant) {
  constexpr const char* kNames[] = {"skipped", "half applied", "swapped", "late", "old codes"};
  return kNames[static_cast<int>(plant)];
}

// The update to version `version` on the device that has these hooks.
struct Fault {
  Plant plant = Plant::skipped;
  std::int64_t version = 1;
  int updates = 0;             // AdamW ops of that version so far
  std::vector<AdamW> delayed;  // to be done when the weights have been read back
  bool done = false;

  bool skips(const SegmentKey& key, const Op& op) {
    if (plant == Plant::old_codes) {
      const bool skips = std::holds_alternative<Quantize>(op) && key.step == version - 1;
      done |= skips;
      return skips;
    }
    const auto* update = std::get_if<AdamW>(&op);
    if (update == nullptr || key.step != version - 1) return false;
    const int number = updates++;
    if (plant == Plant::late) delayed.push_back(*update);
    done |= plant != Plant::swapped;
    return plant == Plant::skipped || plant == Plant::late || (plant == Plant::half_applied && number % 2 == 0);
  }
  void before(const SegmentKey& key, const Op& op) {
    const auto* reading = std::get_if<Digest>(&op);
    if (reading != nullptr && key.step == version && plant == Plant::swapped && !done && reading->x.dtype == Dtype::f32)
      done = swap_halves(reading->x);
    if (reading != nullptr || key.segment_class != SegmentClass::evaluate) return;
    cpu::Scratch scratch;
    for (const AdamW& update : std::exchange(delayed, {})) cpu::run(Op{update}, scratch);
  }
  // Two slices of a tensor in each other's place; a tensor of equal values stays what it is.
  static bool swap_halves(const Tensor& x) {
    const std::int64_t half = x.cols / 2;
    auto* values = x.row<float>(0);
    if (std::equal(values, values + half, values + half)) return false;
    std::swap_ranges(values, values + half, values + half);
    return true;
  }
};

struct Outcome {
  bool planted = false;
  std::string problem;
  std::int64_t last_step = -1;
};

// An undisturbed world but for the plant.
Outcome run_planted(std::uint64_t seed) {
  ScenarioOptions options;
  options.rollouts = true;
  Scenario scenario = draw_scenario(seed, options);
  const Config& config = scenario.config;
  Fault fault;
  fault.plant = static_cast<Plant>(seed % kPlants);
  fault.version =
      1 + static_cast<std::int64_t>(random_below(static_cast<std::uint64_t>(config.train.steps - 1), seed, 1));
  // An update goes wrong at an owner that has one: beside one that is frozen only a copy might be harmed, and nobody
  // computes with that. Weights that are swapped may be frozen.
  std::vector<Address> all = owners(config);
  std::erase_if(all, [&](const Address& owner) {
    return fault.plant != Plant::swapped && trainable_of(config, parameters_of(config, owner)).empty();
  });
  const std::uint32_t node = place_owners(config).at(all[random_below(all.size(), seed, 2)]);
  SimDeviceOptions& device = scenario.world.devices[node];
  device.compute_at = ComputeAt::start;
  device.skips = [&](const SegmentKey& key, const Op& op) { return fault.skips(key, op); };
  device.before = [&](const SegmentKey& key, const Op& op) { fault.before(key, op); };
  scenario.world.network = {};
  scenario.world.jury = {};
  const std::string folder = scratch_name();
  std::filesystem::create_directories(folder + "/checkpoints");
  scenario.world.run_folder = folder;
  Outcome outcome;
  {
    SimWorld world(config, scenario.world);
    world.start({});
    world.run_until([&] { return world.finished() || !world.problem().empty(); }, 600'000'000);
    outcome = {fault.done, world.problem(), -1};
    for (const Report& report : world.reports())
      if (report.kind == "step") outcome.last_step = nlohmann::json::parse(report.json).at("step");
  }
  outcome.last_step -= fault.version;
  std::filesystem::remove_all(folder);
  return outcome;
}

}  // namespace

TEST_CASE("whatever the network and the judges do, a world of rollouts keeps every law and its bits", "[sim][grpo]") {
  check_worlds(1, 100, false);
}

TEST_CASE("nodes die while they sample, judge and learn, and the world has the bits of an undisturbed one",
          "[sim][grpo]") {
  check_worlds(1, 100, true);
}

TEST_CASE(
    "an update that was skipped, half applied, swapped, late or not encoded is found before anybody learns from it",
    "[sim][grpo]") {
  int planted = 0;
  for (std::uint64_t seed = 1; planted < 100; ++seed) {
    REQUIRE(seed < 400);
    const Outcome outcome = run_planted(seed);
    if (!outcome.planted) continue;  // the node holds nothing that this plant can harm
    ++planted;
    INFO("seed " << seed << ", " << name_of(static_cast<Plant>(seed % kPlants)));
    CHECK(outcome.problem.find("isn't what the update to version") != std::string::npos);
    CHECK(outcome.problem.find("nothing was learned") != std::string::npos);
    CHECK(outcome.last_step < 0);  // the planted version was followed by none
  }
}
