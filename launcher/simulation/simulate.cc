// `troupe simulate`: worlds by their seeds, a line each.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/program.h"
#include "launcher/simulation/child.h"
#include "launcher/simulation/shrink.h"
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
  if (!options.faults_path.empty()) command += " --faults " + shell_quoted(options.faults_path);
  for (const std::string& fault : options.faults) command += " --fault " + shell_quoted(fault);
  if (options.losses) command += " --losses";
  if (options.rollouts) command += " --rollouts";
  return fmt::format("{} --seed {}", command, seed);
}

// ---- What dead worlds left ------------------------------------------------------------------------------------------

constexpr const char* kScratch = "/dev/shm";
constexpr std::string_view kScratchName = "troupe-simulate-";

std::string scratch_name() { return fmt::format("{}/{}{}", kScratch, kScratchName, ::getpid()); }

// A world that was killed could not clean up: its process is gone, its folder isn't.
void sweep_scratch() {
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(kScratch, failed)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kScratchName)) continue;
    const int process = std::atoi(name.c_str() + kScratchName.size());
    if (process > 0 && ::kill(process, 0) != 0 && errno == ESRCH) std::filesystem::remove_all(entry.path(), failed);
  }
}

// Not what a signal handler should do, but the process ends here whatever comes of it.
void tidy_up(int signal) {
  std::error_code failed;
  std::filesystem::remove_all(scratch_name(), failed);
  ::_exit(128 + signal);
}

// ---- Shrinking ------------------------------------------------------------------------------------------------------

int shrink_seed(const SimulateOptions& options) {
  if (!options.config_path.empty()) throw Error("--shrink works on drawn worlds: leave {} away", options.config_path);
  Simulator simulator(scratch_name());
  const auto broken = [&](const Overrides& overrides) {
    ScenarioOptions how;
    how.losses = overrides.losses;
    how.rollouts = options.rollouts;
    how.faults = load_faults(options.faults_path, overrides.faults);
    how.sets = overrides.sets;
    return broken_in_child(simulator, draw_scenario(options.seed, how), kWorldSecondsMax);
  };
  const Overrides begin{options.losses, options.faults, options.sets};
  if (broken(begin).empty()) {
    std::printf("seed %llu breaks no law: nothing to shrink\n", static_cast<unsigned long long>(options.seed));
    return 0;
  }
  const Shrunk smallest = shrink(begin, broken);
  const std::string faults = options.faults_path.empty() ? "" : " --faults " + shell_quoted(options.faults_path);
  std::printf("%s\n  after %d worlds: %s simulate --seed %llu%s%s%s\n", smallest.broken.c_str(), smallest.tried,
              program().c_str(), static_cast<unsigned long long>(options.seed), options.rollouts ? " --rollouts" : "",
              faults.c_str(), to_flags(smallest.overrides).c_str());
  return 1;
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
  how.rollouts = options.rollouts;
  how.sets = options.sets;
  how.faults = load_faults(options.faults_path, options.faults);
  if (!options.config_path.empty()) how.base = load_config(options.config_path, options.sets);
  sweep_scratch();
  if (options.shrink) return shrink_seed(options);
  std::signal(SIGINT, tidy_up);
  std::signal(SIGTERM, tidy_up);
  std::signal(SIGABRT, say_last_words);
  std::signal(SIGALRM, say_last_words);
  Simulator simulator(scratch_name(), options.trace);
  std::uint64_t messages = 0, broken = 0;
  const auto begin = Clock::now();
  for (std::uint64_t world = 0; world < options.seeds; ++world) {
    const std::uint64_t seed = options.seed + world;  // after the largest seed comes 0
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
