// `troupe simulate`: worlds by their seeds, a line each.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "launcher/config.h"
#include "launcher/program.h"
#include "launcher/simulation/scenario.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kWorldSecondsMax = 60;  // of real time, for a drawn world

// A programmer's error ends the process where it stands; the seed must not be lost with it.
std::array<char, 1024> last_words{};

void say_last_words(int signal) {
  [[maybe_unused]] auto written = ::write(STDERR_FILENO, last_words.data(), ::strlen(last_words.data()));
  if (signal != SIGALRM) return;
  constexpr std::string_view kLate = "  it takes too long: an actor that never returns?\n";
  written = ::write(STDERR_FILENO, kLate.data(), kLate.size());
  ::_exit(1);
}

std::string replay_command(const SimulateOptions& options, std::uint64_t seed) {
  std::string command = program() + " simulate";
  if (!options.config_path.empty()) command += " " + shell_quoted(options.config_path);
  for (const std::string& set : options.sets) command += " --set " + shell_quoted(set);
  if (options.losses) command += " --losses";
  return fmt::format("{} --seed {}", command, seed);
}

void prepare_last_words(const std::string& words) {
  last_words.fill('\0');
  words.copy(last_words.data(), last_words.size() - 1);
}

void print(const Scenario& scenario, const WorldResult& result, const std::string& replay) {
  std::printf("seed %llu | %s | %.3f s virtual, %llu messages, %llu segments%s, log %016llx: %s\n",
              static_cast<unsigned long long>(scenario.seed), describe(scenario).c_str(),
              static_cast<double>(result.virtual_us) * 1e-6, static_cast<unsigned long long>(result.messages),
              static_cast<unsigned long long>(result.segments),
              result.losses > 0 ? fmt::format(", {} losses survived", result.losses).c_str() : "",
              static_cast<unsigned long long>(result.hash), result.broken.empty() ? "ok" : result.broken.c_str());
  if (!result.broken.empty()) std::printf("  replay: %s\n", replay.c_str());
  std::fflush(stdout);
}

}  // namespace

int simulate(const SimulateOptions& options) {
  ScenarioOptions how;
  how.losses = options.losses;
  if (!options.config_path.empty()) how.base = load_config(options.config_path, options.sets);
  std::signal(SIGABRT, say_last_words);
  std::signal(SIGALRM, say_last_words);
  Simulator simulator(fmt::format("/dev/shm/troupe-simulate-{}", ::getpid()), options.trace);
  std::uint64_t messages = 0, broken = 0;
  const auto begin = Clock::now();
  for (std::uint64_t seed = options.seed; seed < options.seed + options.seeds; ++seed) {
    const std::string replay = replay_command(options, seed);
    prepare_last_words("  replay: " + replay + "\n");
    if (!how.base) ::alarm(kWorldSecondsMax);
    const Scenario scenario = draw_scenario(seed, how);
    const WorldResult result = simulator.run(scenario);
    messages += result.messages;
    broken += result.broken.empty() ? 0 : 1;
    if (!options.quiet || !result.broken.empty()) print(scenario, result, replay);
  }
  ::alarm(0);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::printf("%llu worlds, %llu broken, %.1f worlds/s, %.0f messages/s\n",
              static_cast<unsigned long long>(options.seeds), static_cast<unsigned long long>(broken),
              static_cast<double>(options.seeds) / seconds, static_cast<double>(messages) / seconds);
  return broken == 0 ? 0 : 1;
}

}  // namespace troupe
