// The hunt: simulated worlds with one planted fault after another, each world in a process of its own, until a law is
// broken. Law: what a world is compared with was computed by the healthy program, before any mutant was picked.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

#include "kernels/base/mutant.h"
#include "launcher/simulation/child.h"

namespace troupe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kWorldSecondsMax = 20;
constexpr std::uint64_t kHealthyWorlds =
    48;  // after these every model that a seed may draw has its undisturbed outcome

struct Entry {
  Mutant mutant;
  const char* what;
};
constexpr std::array kMutants = {
    Entry{Mutant::microbatch_credit_kept, "a stage keeps the credit of a microbatch that is done"},
    Entry{Mutant::empty_chunk_credit_kept, "a shard keeps the credit of a chunk without rows"},
    Entry{Mutant::credit_without_layer, "a credit for one layer is spent on another"},
    Entry{Mutant::early_credit_dropped, "a stage drops the credits of an attempt that it has yet to enter"},
    Entry{Mutant::duplicate_delivered, "a frame that came twice is delivered twice"},
    Entry{Mutant::stale_incarnation_accepted, "frames from and to dead incarnations are taken"},
    Entry{Mutant::gap_ignored, "frames that came early are delivered before those missing"},
    Entry{Mutant::damage_accepted, "a payload's checksum is not looked at"},
    Entry{Mutant::acknowledged_too_much, "a frame is acknowledged while one before it is missing"},
    Entry{Mutant::vote_before_copy, "an owner votes before its copy has the gradient"},
    Entry{Mutant::vote_of_old_attempt, "the conductor counts votes of an older attempt"},
    Entry{Mutant::chunk_of_old_attempt, "a shard takes chunks of an older attempt"},
    Entry{Mutant::decided_before_last_vote, "a step is decided before the last vote is in"},
    Entry{Mutant::decision_forgotten, "a decision that somebody saw is forgotten after a loss"},
    Entry{Mutant::decision_applied_twice, "a decision is applied again after a loss"},
    Entry{Mutant::half_update_forgotten, "an update that was under way at a loss is not counted"},
    Entry{Mutant::shadow_keeps_old, "a shadow counts a decision and keeps the old weights"},
    Entry{Mutant::moments_not_fetched, "moments are not taken over from the copy"},
    Entry{Mutant::moments_not_loaded, "moments are not read from the checkpoint"},
    Entry{Mutant::router_bias_not_fetched, "the router's bias is not taken over from the copy"},
    Entry{Mutant::restored_early, "a state counts as restored before its last part came"},
    Entry{Mutant::conductor_forgets, "a new conductor does not take over the counters"},
    Entry{Mutant::sums_kept, "the sums of a lost attempt are kept"},
    Entry{Mutant::counts_kept, "the losses of a step are counted in the next too"},
    Entry{Mutant::chunks_by_arrival, "an expert's chunks are summed as they come"},
    Entry{Mutant::microbatches_by_arrival, "a dense layer's microbatches are summed as they come"},
    Entry{Mutant::wrong_lane, "every gradient goes to the first lane"},
    Entry{Mutant::sums_under_wrong_step, "a twin's sums are filed under the receiver's step"},
    Entry{Mutant::lost_wakeup, "work that waits for the embedding is not woken"},
    Entry{Mutant::part_of_forgotten_save, "parts of a save that a loss cut short are written into the next"},
    Entry{Mutant::manifest_first, "the manifest is written before the last files"},
    Entry{Mutant::rename_before_sync, "a checkpoint gets its name before it is synced"},
    Entry{Mutant::done_before_disk, "a checkpoint is reported before the disk has it"},
    Entry{Mutant::pruned_early, "the older checkpoint goes before the newer is whole"},
};
static_assert(kMutants.size() + 1 == static_cast<std::size_t>(Mutant::count));

struct Options {
  std::uint64_t worlds = 100;  // of each kind
  double seconds = 600;        // for one mutant
  int only = 0;
};

struct Hunt {
  std::uint64_t worlds = 0, first = 0;         // until the first that found it; 0: none
  double first_seconds = 0;                    // what it took
  std::array<std::uint64_t, 2> found{}, of{};  // without and with losses
  std::string law, replay;
};

Hunt hunt(Simulator& simulator, const Options& options, const Entry& entry) {
  Hunt hunt;
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  // Once it is found, the count is filled up; until then the time counts.
  const auto goes_on = [&](std::uint64_t seed) {
    return seconds() < options.seconds && (hunt.first == 0 || seed <= options.worlds);
  };
  for (std::uint64_t seed = 1; goes_on(seed); ++seed) {
    for (const bool losses : {false, true}) {
      const Scenario scenario = draw_scenario(seed, {.base = {}, .losses = losses, .faults = {}, .sets = {}});
      kPickedMutant = static_cast<int>(entry.mutant);
      const std::string law = broken_in_child(simulator, scenario, kWorldSecondsMax);
      kPickedMutant = 0;
      ++hunt.worlds;
      ++hunt.of[losses ? 1 : 0];
      if (law.empty()) continue;
      ++hunt.found[losses ? 1 : 0];
      if (hunt.first != 0) continue;
      hunt.first = hunt.worlds;
      hunt.first_seconds = seconds();
      hunt.law = law;
      hunt.replay = fmt::format("--seed {}{}", seed, losses ? " --losses" : "");
    }
  }
  return hunt;
}

bool read_options(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--worlds")
      options.worlds = std::stoull(value);
    else if (name == "--seconds")
      options.seconds = std::stod(value);
    else if (name == "--only")
      options.only = std::stoi(value);
    else
      return false;
  }
  return argc % 2 == 1;
}

int run(const Options& options) {
  Simulator simulator(fmt::format("/dev/shm/troupe-simulate-{}", ::getpid()));
  for (std::uint64_t seed = 1; seed <= kHealthyWorlds; ++seed) {
    const std::string broken = simulator.run(draw_scenario(seed, {})).broken;
    if (broken.empty()) continue;
    fmt::print(stderr, "the healthy world of seed {}: {}\n", seed, broken);
    return 1;
  }
  fmt::print(
      "| | mutant | first found by world | seconds | without losses | with losses | the law that told |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n");
  int missed = 0;
  for (const Entry& entry : kMutants) {
    const int number = static_cast<int>(entry.mutant);
    if (options.only != 0 && options.only != number) continue;
    const Hunt h = hunt(simulator, options, entry);
    const bool by_law = h.first != 0 && !h.law.starts_with("TOO LONG");
    missed += by_law ? 0 : 1;
    fmt::print("| {} | {} | {} | {:.1f} | {} of {} | {} of {} | {} ({}) |\n", number, entry.what,
               h.first == 0 ? "not found" : std::to_string(h.first), h.first_seconds, h.found[0], h.of[0], h.found[1],
               h.of[1], h.law, h.replay);
    std::fflush(stdout);
  }
  return missed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  troupe::Options options;
  if (!troupe::read_options(argc, argv, options)) {
    fmt::print(stderr, "usage: mutants [--worlds N] [--seconds S] [--only NUMBER]\n");
    return 2;
  }
  return troupe::run(options);
}
