#include "launcher/simulation/rehearsal.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/checkpoint/manifest.h"
#include "actors/journal.h"
#include "kernels/base/error.h"
#include "launcher/plan.h"
#include "launcher/simulation/begin.h"
#include "launcher/simulation/sim_world.h"

namespace troupe {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLimitUs = 100'000'000'000;
constexpr int kMomentsALook = 64;  // at what is resident

// One world of a rehearsal. Companions compute the same beside it, so that what threads of one machine take from each
// other, caches and memory, is in what is measured.
struct TimedWorld {
  explicit TimedWorld(const RehearsalOptions& o) : options(o) {}
  const RehearsalOptions& options;
  std::vector<std::shared_ptr<Blocks>> blocks;
  std::vector<std::size_t> most;
  std::vector<double> step_seconds;
  std::vector<std::uint64_t> records;  // of the journal of each node, in all
  std::exception_ptr failed;

  void run(const std::string& folder);
  void look(const SimWorld& world);
};

double bytes_per_us(const RehearsalOptions& o) {
  const double shaped = o.config.link.gbits_per_second / 8 * 1e3, real = o.links.gbytes_per_second * 1e3;
  return shaped > 0 ? std::min(shaped, real) : real;
}

SimWorldOptions world_options(TimedWorld& world, const std::string& folder) {
  const RehearsalOptions& o = world.options;
  SimWorldOptions options;
  options.seed = o.config.train.seed;
  options.run_folder = folder;
  options.corpus = corpus_of(o.config);
  options.network.small_bytes_max = 0;
  options.network.latency_us = std::llround(o.config.link.delay_ms * 1e3 + o.links.latency_us);
  options.network.bytes_per_us = bytes_per_us(o);
  options.hosts = HostOptions{.cores = o.cores, .nodes_a_host = static_cast<std::uint32_t>(o.nodes_a_machine)};
  options.journal_records = 1024;
  for (int node = 0; node < o.config.layout.nodes; ++node) {
    world.blocks.push_back(std::make_shared<Blocks>());
    SimDeviceOptions device;
    device.servers = o.config.device.threads;
    device.timed = true;
    device.blocks = world.blocks.back();
    options.devices.push_back(std::move(device));
  }
  return options;
}

void TimedWorld::look(const SimWorld& world) {
  const std::vector<std::size_t> now = world.bytes_resident();
  most.resize(now.size(), 0);
  for (std::size_t i = 0; i < now.size(); ++i) most[i] = std::max(most[i], now[i]);
}

void TimedWorld::run(const std::string& folder) {
  fs::create_directories(folder + "/checkpoints");
  SimWorld world(options.config, world_options(*this, folder));
  world.start({});
  std::size_t heard = 0;
  int moments = 0;
  const auto over = [&] {
    for (; heard < world.reports().size(); ++heard) {
      if (world.reports()[heard].kind != "step") continue;
      const auto line = nlohmann::json::parse(world.reports()[heard].json);
      step_seconds.push_back(line.at("step_seconds").get<double>());
      if (options.heard) options.heard(line.at("step").get<std::int64_t>());
    }
    if (moments++ % kMomentsALook == 0) look(world);
    return world.finished() || !world.problem().empty();
  };
  if (!world.run_until(over, kLimitUs)) throw Error("the rehearsal has no end: {}", world.owed());
  if (!world.problem().empty()) throw Error("the rehearsal reports: {}", world.problem());
  look(world);
  for (int node = 0; node < o.config.layout.nodes; ++node) {
    world.blocks.push_back(std::make_shared<Blocks>());
    SimDeviceOptions device;
    device.servers = o.config.device.threads;
    device.timed = true;
    device.blocks = world.blocks.back();
    options.devices.push_back(std::move(device));
  }
  return options;
}

void TimedWorld::look(const SimWorld& world) {
  const std::vector<std::size_t> now = world.bytes_resident();
  most.resize(now.size(), 0);
  for (std::size_t i = 0; i < now.size(); ++i) most[i] = std::max(most[i], now[i]);
}

void TimedWorld::run(const std::string& folder) {
  fs::create_directories(folder + "/checkpoints");
  SimWorld world(options.config, world_options(*this, folder));
  world.start({});
  std::size_t heard = 0;
  int moments = 0;
  const auto over = [&] {
    for (; heard < world.reports().size(); ++heard) {
      if (world.reports()[heard].kind != "step") continue;
      const auto line = nlohmann::json::parse(world.reports()[heard].json);
      step_seconds.push_back(line.at("step_seconds").get<double>());
      if (options.heard) options.heard(line.at("step").get<std::int64_t>());
    }
    if (moments++ % kMomentsALook == 0) look(world);
    return world.finished() || !world.problem().empty();
  };
  if (!world.run_until(over, kLimitUs)) throw Error("the rehearsal has no end: {}", world.owed());
  if (!world.problem().empty()) throw Error("the rehearsal reports: {}", world.problem());
  look(world);
  fmt::print(stderr, "scratch {} records", double(world.scratch_bytes(0))/1048576);
  for (int node = 0; node < options.config.layout.nodes; ++node)
  for (int node = 0; node < options.config.layout.nodes; ++node)
    records.push_back(world.journal_records(static_cast<std::uint32_t>(node)));
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

}  // namespace

Rehearsal rehearse(const RehearsalOptions& given) {
  RehearsalOptions options = given;
  options.config.train.steps = options.steps;
  options.config.evaluate.every_steps = options.config.checkpoint.every_steps = 0;
  const auto begin = std::chrono::steady_clock::now();
  const int busy = options.config.device.threads * std::min(options.nodes_a_machine, options.config.layout.nodes);
  std::vector<TimedWorld> worlds(static_cast<std::size_t>(std::clamp(busy, 1, options.cores)), TimedWorld(options));
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < worlds.size(); ++i)
    threads.emplace_back([&worlds, i, &options] {
      try {
        worlds[i].run(fmt::format("{}/{}", options.scratch, i));
      } catch (...) {
        worlds[i].failed = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  Rehearsal result;
  for (const TimedWorld& world : worlds) {
    if (world.failed) std::rethrow_exception(world.failed);
    for (std::size_t i = static_cast<std::size_t>(options.warm_up); i < world.step_seconds.size(); ++i)
      result.step_seconds.push_back(world.step_seconds[i]);
  }
  result.seconds = median(result.step_seconds);
  for (std::size_t node = 0; node < worlds[0].most.size(); ++node) {
    RehearsedNode one;
    for (const TimedWorld& world : worlds) one.actors = std::max(one.actors, world.most[node]);
    result.nodes.push_back(one);
  }
  result.took_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace troupe
