// Scenario: everything about a simulated world that is left to chance, drawn in one place from one seed: the numbers
// (from a small set, so that their undisturbed outcome is computed once), layout, limits small on purpose, and what
// strikes network, nodes and disk. A failing seed is replayed by its number.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/config.h"
#include "launcher/simulation/faults.h"
#include "launcher/simulation/laws.h"
#include "launcher/simulation/sim_world.h"

namespace troupe {

// A node that dies when so many messages of a kind have reached their actors, and comes back after a while.
struct NodeLoss {
  std::string kind;  // as kind_of() says it; empty: any
  std::uint64_t after_messages = 0;
  std::uint32_t node = 0;
  std::int64_t back_after_us = 0;
  bool abandoned = false;  // it runs on as a zombie
};

struct ScenarioOptions {
  std::optional<Config> base;  // numbers of a person's configuration instead of drawn ones
  bool losses = false;         // nodes die
  bool rollouts = false;       // drawn numbers are of reinforcement: answers are sampled, judged and learned from
  Faults faults{};
  std::vector<std::string> sets{};  // keys of a drawn configuration that are given instead, "layout.nodes=2"
};

struct Scenario {
  std::uint64_t seed = 0;
  Config config;
  bool numbers = true;
  SimWorldOptions world;  // without run_folder and corpus
  std::vector<NodeLoss> losses;
  // The whole run falls when so many messages were delivered, and goes on from its last checkpoint in another world.
  std::uint64_t falls_after_messages = 0;
  std::shared_ptr<const Scenario> sequel;
};
Scenario draw_scenario(std::uint64_t seed, const ScenarioOptions& options);
// "nodes 2 replicas 1 stages 2 shards 2 slots 1 ... drop 3%": one line for a person.
std::string describe(const Scenario& scenario);

struct WorldResult {
  std::string broken;  // the law that was broken, a sentence; empty: none
  std::string digest;
  Curve curve;
  std::int64_t virtual_us = 0;
  std::uint64_t messages = 0, segments = 0, hash = 0;
  int losses = 0;           // that happened before the end
  bool fell = false;        // as a whole, and went on in another world
  bool disk_full = false;   // and a checkpoint failed for it
  std::int64_t saved = -1;  // the last version that was reported as saved
};

// Runs worlds; keeps the outcomes of undisturbed ones. Everything is written below `scratch`, which goes with it. While
// it lives the process's log is its own: a world in which an error is logged has failed.
class Simulator {
 public:
  // trace: every message of the disturbed worlds is printed as it reaches its actor.
  explicit Simulator(std::string scratch, bool trace = false);
  ~Simulator();
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;
  WorldResult run(const Scenario& scenario);
  const std::string& scratch() const { return scratch_; }
  // Errors that were logged by others into this simulator's log are not its next world's.
  void forget_errors() { logged_error(); }

 private:
  const Undisturbed& undisturbed(const Scenario& scenario);
  void play(const Scenario& scenario, const std::string& folder, bool trace, WorldResult& result);

  std::string judge(const Scenario& scenario, const std::string& folder, WorldResult& result);
  std::string logged_error();

  std::string scratch_;
  bool trace_;
  std::uint64_t error_lines_ = 0;
  std::map<std::string, Undisturbed> undisturbed_;  // by digest of the numbers, and steps
};

}  // namespace troupe
