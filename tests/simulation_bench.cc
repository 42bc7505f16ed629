// How fast simulated worlds pass. Figures are of this process's processor time, so that a neighbour's build does not
// count, and whole: drawing, setting up, running, judging and clearing away.
#include <fmt/core.h>
#include <unistd.h>

#include <ctime>

#include "launcher/simulation/scenario.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// The first `count` drawn worlds whose devices run no numbers.
void measure(std::uint64_t count, const ScenarioOptions& options) {
  Simulator simulator(fmt::format("/dev/shm/troupe-simulation-bench-{}", ::getpid()));
  std::uint64_t worlds = 0, messages = 0;
  const double begin = processor_seconds();
  for (std::uint64_t seed = 1; worlds < count; ++seed) {
    const Scenario scenario = draw_scenario(seed, options);
    if (scenario.numbers) continue;
    const WorldResult result = simulator.run(scenario);
    CHECK(result.broken == "");
    messages += result.messages;
    ++worlds;
  }
  const double seconds = processor_seconds() - begin;
  fmt::print("{} worlds without numbers{}: {:.0f} worlds/s, {:.0f} messages/s\n", worlds,
             options.losses ? ", with losses" : "", static_cast<double>(worlds) / seconds,
             static_cast<double>(messages) / seconds);
}

}  // namespace

TEST_CASE("messages a second of worlds without numbers", "[.][bench]") { measure(300, {}); }

TEST_CASE("messages a second of worlds without numbers, with losses", "[.][bench]") {
  measure(300, {.base = {}, .losses = true});
}
