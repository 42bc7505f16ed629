#include "launcher/simulation/rehearsal.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/journal.h"
#include "kernels/base/error.h"
#include "launcher/interrupts.h"
#include "launcher/loop.h"
#include "launcher/plan.h"
#include "launcher/simulation/begin.h"
#include "launcher/simulation/short_corpus.h"
#include "launcher/simulation/sim_world.h"

namespace troupe {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kLimitUs = 100'000'000'000;
constexpr int kMomentsALook = 64;  // at what is resident
constexpr std::int32_t kHeldOutMicrobatches = 64;
// Where every core computes, a turn of the loop costs its thread this much besides: caches grow cold, threads wake.
constexpr double kSwitchUs = 35;
// A sleeping loop wakes, and where threads wait for cores the scheduler lets some of the loops wait too, up to its tick: of
// segments that ended it took 24 us in the median, 350 in the mean, 1 ms of the slowest tenth and 4 of the slowest in a
// hundred until their loop knew (four nodes on two cores, Linux 6.18, 250 Hz).
constexpr double kWakeUs = 60, kLateShare = 0.4, kLateUs = 4000;
// Of a frame beside its link: the compute thread wakes too, and UCX asks for large payloads.
constexpr double kFrameUs = 90;
constexpr double kDiskBytesPerUs = 100;  // a slow one: what waits for it is memory
constexpr int kProblems = 512;
constexpr std::size_t kMiB = std::size_t{1} << 20;
// Real threads and messages overlap in more ways than one order of virtual time shows.
constexpr double kOverlap = 1.04;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// One world of a rehearsal. Companions compute the same beside it, so that what the threads of a machine take from each
// other, caches and memory, is in what is measured.
class TimedWorld {
 public:
  TimedWorld(const RehearsalOptions& options, std::shared_ptr<const Corpus> corpus)
      : options_(options), corpus_(std::move(corpus)) {}
  void run(const std::string& folder);
  void add_to(Rehearsal& all) const;

 private:
  SimWorldOptions world_options(const std::string& folder);
  void listen(SimWorld& world);
  void look(const SimWorld& world);
  std::size_t journal_bytes(std::size_t node) const;

  const RehearsalOptions& options_;
  std::shared_ptr<const Corpus> corpus_;
  Clock::time_point began_ = Clock::now();
  std::size_t heard_ = 0;
  bool stopped_ = false;
  std::vector<std::size_t> most_, scratch_;
  std::vector<double> step_seconds_;
  std::vector<std::vector<std::uint64_t>> records_;  // of each node's journal, when a step was done
  std::vector<std::uint64_t> frames_;                // likewise, sent
  nlohmann::json first_bill_, last_bill_;            // when the warm-up was over; after the last step
};

SimWorldOptions TimedWorld::world_options(const std::string& folder) {
  const Config& config = options_.config;
  const HardwareConfig& h = config.hardware;
  SimWorldOptions options;
  options.seed = config.train.seed;
  options.run_folder = folder;
  options.corpus = corpus_;
  const double real = h.inside_gbytes_per_second > 0 ? h.inside_gbytes_per_second : 4;
  const double shaped = config.link.gbits_per_second / 8;
  options.network.small_bytes_max = 0;
  options.network.latency_us = std::llround(config.link.delay_ms * 1e3 + h.inside_latency_us + kFrameUs);
  options.network.bytes_per_us = 1e3 * (shaped > 0 ? std::min(shaped, real) : real);
  options.hosts = HostOptions{.cores = {.cores = static_cast<std::size_t>(options_.cores)},
                              .nodes_a_host = static_cast<std::uint32_t>(options_.nodes_a_machine),
                              .switch_us = kSwitchUs,
                              .wake_us = kWakeUs,
                              .late_share = kLateShare,
                              .late_us = kLateUs};
  options.disk.bytes_per_us = kDiskBytesPerUs;
  options.journal_records = 1024;
  for (int node = 0; node < config.layout.nodes; ++node) {
    SimDeviceOptions device;
    device.servers = config.device.threads;
    device.timed_ns = thread_time_ns;
    device.blocks = std::make_shared<Blocks>();
    options.devices.push_back(std::move(device));
  }
  return options;
}

void TimedWorld::look(const SimWorld& world) {
  const std::vector<std::size_t> now = world.bytes_resident();
  most_.resize(now.size(), 0);
  for (std::size_t i = 0; i < now.size(); ++i) most_[i] = std::max(most_[i], now[i]);
}

void TimedWorld::listen(SimWorld& world) {
  for (; heard_ < world.reports().size(); ++heard_) {
    if (world.reports()[heard_].kind != "step") continue;
    const auto line = nlohmann::json::parse(world.reports()[heard_].json);
    step_seconds_.push_back(line.at("step_seconds").get<double>());
    records_.emplace_back();
    for (int node = 0; node < options_.config.layout.nodes; ++node)
      records_.back().push_back(world.journal_records(static_cast<std::uint32_t>(node)));
    frames_.push_back(world.network_counters().sent);
    last_bill_ = world.bill();
    if (static_cast<int>(step_seconds_.size()) <= options_.warm_up) first_bill_ = last_bill_;
    if (options_.heard) options_.heard(static_cast<std::int64_t>(step_seconds_.size()));
  }
  if (options_.interrupted && options_.interrupted()) throw Interrupted();
  const auto steps = static_cast<int>(step_seconds_.size());
  const bool late = steps > options_.warm_up + 1 && seconds_since(began_) > options_.seconds_max;
  if (stopped_ || !late) return;
  stopped_ = true;
  world.deliver({{Role::supervisor, 0}, {Role::conductor, 0}, Stop{"enough was seen"}});
}

void TimedWorld::run(const std::string& folder) {
  fs::create_directories(folder + "/checkpoints");
  SimWorld world(options_.config, world_options(folder));
  world.start({});
  int moments = 0;
  const auto over = [&] {
    listen(world);
    if (moments++ % kMomentsALook == 0) look(world);
    return world.finished() || !world.problem().empty();
  };
  if (!world.run_until(over, kLimitUs)) throw Error("the rehearsal has no end: {}", world.owed());
  if (!world.problem().empty()) throw Error("the rehearsal reports: {}", world.problem());
  look(world);
  for (int node = 0; node < options_.config.layout.nodes; ++node)
    scratch_.push_back(world.scratch_bytes(static_cast<std::uint32_t>(node)));
}

// Its pages come as they are written, until it is a ring: so many steps as the run has.
std::size_t TimedWorld::journal_bytes(std::size_t node) const {
  const auto first = static_cast<std::size_t>(options_.warm_up);
  const auto begun = static_cast<double>(records_.at(first)[node]);
  const double a_step =
      (static_cast<double>(records_.back()[node]) - begun) / static_cast<double>(records_.size() - first - 1);
  const double all = begun + a_step * static_cast<double>(options_.steps_in_all);
  const double ring = static_cast<double>(options_.config.inspect.journal_mib) * static_cast<double>(kMiB);
  return static_cast<std::size_t>(std::min(ring, all * kJournalRecordBytes));
}

void TimedWorld::add_to(Rehearsal& all) const {
  const Config& config = options_.config;
  const auto first = static_cast<std::size_t>(options_.warm_up);
  all.step_seconds.insert(all.step_seconds.end(), step_seconds_.begin() + options_.warm_up, step_seconds_.end());
  for (const auto& [bin, seconds] : last_bill_.at("thread_seconds").items())
    all.bins[bin] += seconds.get<double>() - first_bill_.at("thread_seconds").at(bin).get<double>();
  const double steps = static_cast<double>(step_seconds_.size() - first - 1);
  all.frames_a_step = static_cast<double>(frames_.back() - frames_.at(first)) / steps;
  all.early |= stopped_;
  all.nodes.resize(most_.size());
  for (std::size_t i = 0; i < most_.size(); ++i) {
    RehearsedNode& node = all.nodes[i];
    const auto actors = static_cast<std::size_t>(kOverlap * static_cast<double>(most_[i]));
    node.actors = std::max(node.actors, actors);
    node.program = process_bytes(config, static_cast<std::uint32_t>(i)) +
                   scratch_[i] * static_cast<std::size_t>(config.device.threads);
    node.journal = journal_bytes(i);
    node.data = i == 0 && corpus_ ? corpus_->bytes() : 0;
  }
}

// Of a run its first steps. What it does every so many steps, it does once in the middle, as it goes on.
Config shortened(const RehearsalOptions& options) {
  Config config = options.config;
  const auto once = [&](int& every) { every = every > 0 ? std::max(options.warm_up, options.steps / 2) : 0; };
  once(config.evaluate.every_steps);
  once(config.checkpoint.every_steps);
  config.evaluate.exact_match_problems = std::min(config.evaluate.exact_match_problems, kProblems);
  config.budget = {};
  // Few of many steps: the learning rate stays where it is when it has warmed up.
  if (config.train.steps > options.steps) config.train.schedule = "constant";
  config.train.steps = std::clamp<std::int64_t>(config.train.steps, options.warm_up + 2, options.steps);
  return config;
}

}  // namespace

double Rehearsal::quantile(double share) const {
  if (step_seconds.empty()) return 0;
  const double place = share * static_cast<double>(step_seconds.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, step_seconds.size() - 1);
  return step_seconds[below] + (place - static_cast<double>(below)) * (step_seconds[above] - step_seconds[below]);
}

Rehearsal rehearse(const RehearsalOptions& given) {
  RehearsalOptions options = given;
  options.steps_in_all = given.config.train.steps;
  options.config = shortened(given);
  const Config& config = options.config;
  const auto begin = Clock::now();
  const int busy = config.device.threads * std::min(options.nodes_a_machine, config.layout.nodes);
  const auto corpus = std::make_shared<ShortCorpus>(corpus_of(config), kHeldOutMicrobatches);
  std::vector<TimedWorld> worlds(static_cast<std::size_t>(std::clamp(busy, 1, options.cores)),
                                 TimedWorld(options, corpus));
  std::vector<std::exception_ptr> failed(worlds.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < worlds.size(); ++i)
    threads.emplace_back([&, i] {
      try {
        worlds[i].run(fmt::format("{}/{}", options.scratch, i));
      } catch (...) {
        failed[i] = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& one : failed)
    if (one) std::rethrow_exception(one);
  Rehearsal all;
  for (const TimedWorld& world : worlds) world.add_to(all);
  std::sort(all.step_seconds.begin(), all.step_seconds.end());
  all.worlds = static_cast<int>(worlds.size());
  all.took_s = seconds_since(begin);
  return all;
}

}  // namespace troupe
