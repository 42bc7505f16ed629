#include "launcher/simulation/step_world.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/rules/placement.h"
#include "actors/rules/trainable.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/simulation/sim_world.h"

namespace troupe {

namespace {

constexpr std::int64_t kStepMaxUs = 10'000'000'000, kAskUs = 10'000;
constexpr Address kConductor{Role::conductor, 0};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

SimFabric fabric_of(const HardwareConfig& h, const Fold& fold) {
  return {.nodes_a_host = static_cast<std::uint32_t>(hosts_of(h.devices_per_machine, fold)),
          .inside = {h.inside_gbytes_per_second * 1e3, std::llround(h.inside_latency_us)},
          .between = {h.between_gbytes_per_second * 1e3, std::llround(h.between_latency_us)}};
}

SimWorldOptions world_options(const StepOptions& from, const Config& world, const Fold& fold) {
  const HardwareConfig& h = from.config.hardware;
  SimWorldOptions options;
  options.seed = from.seed;
  options.run_folder = "/nonexistent";  // nothing is saved
  options.corpus = make_sim_corpus(world);
  options.network.fabric = fabric_of(h, fold);
  options.network.weighs = frame_weights(h.devices_per_machine, fold);
  options.link.heartbeat_us = kStepMaxUs;  // nobody dies
  options.introduced = false;
  options.ask_us = kAskUs;
  for (int node = 0; node < world.layout.nodes; ++node) {
    SimDeviceOptions device;
    device.flops_per_us = world.peak_gflops() * 1e3 * h.product_share;
    device.bytes_per_us = h.memory_gbytes_per_second * 1e3 * h.memory_share;
    device.numbers = false;
    device.memory = from.memory;
    device.seed = from.seed;
    device.load = from.load;
    device.stretches = segment_weights(world, static_cast<std::uint32_t>(node), fold);
    options.devices.push_back(std::move(device));
  }
  return options;
}

std::map<std::string, double> bins_of(SimWorld& world) {
  std::map<std::string, double> bins;
  const nlohmann::json line = world.bill();
  for (const auto& [bin, seconds] : line.at("thread_seconds").items()) bins[bin] = seconds.get<double>();
  return bins;
}

// The world on its way through a step.
struct Run {
  StepFigures& figures;
  std::int64_t begin_us = 0;
  std::array<KindCount, std::variant_size_v<Message>> kinds{};
  std::array<std::string, std::variant_size_v<Message>> names{};

  void see(std::int64_t now_us, const Envelope& envelope) {
    KindCount& kind = kinds[envelope.message.index()];
    const double at_s = static_cast<double>(now_us - begin_us) * 1e-6;
    if (kind.messages++ == 0) {
      kind.first_s = at_s;
      names[envelope.message.index()] = kind_of(envelope.message);
    }
    kind.last_s = at_s;
  }
  void tell() {
    for (std::size_t i = 0; i < kinds.size(); ++i)
      if (kinds[i].messages > 0) figures.kinds[names[i]] = kinds[i];
  }
};

bool has_reported(const SimWorld& world, const std::string& kind) {
  return !world.reports().empty() && world.reports().back().kind == kind;
}

void run(SimWorld& world, Run& run) {
  StepFigures& f = run.figures;
  world.start({});
  world.deliver({{Role::supervisor, 0}, kConductor, Pause{.on = true, .steps = 1}});
  CHECK(world.run_until([&] { return has_reported(world, "ready"); }, kStepMaxUs), "the world didn't begin");
  run.begin_us = world.now_us();
  run.kinds = {};
  const auto before = bins_of(world);
  const std::uint64_t messages = world.messages(), segments = world.segments(), moments = world.rounds();
  const std::uint64_t frames = world.network_counters().sent;
  CHECK(world.run_until([&] { return has_reported(world, "step"); }, run.begin_us + kStepMaxUs),
        "the step has no end: {}", world.owed());
  f.decided_s = static_cast<double>(world.now_us() - run.begin_us) * 1e-6;
  CHECK(world.run_until([&] { return world.at_rest(); }, world.now_us() + kStepMaxUs),
        "the step's update has no end: {}", world.owed());
  f.seconds = static_cast<double>(world.now_us() - run.begin_us) * 1e-6;
  for (const auto& [bin, seconds] : bins_of(world)) {
    const auto known = before.find(bin);
    const double spent = seconds - (known == before.end() ? 0 : known->second);
    if (spent > 0) f.device_seconds[bin] = spent;
  }
  run.tell();
  f.messages = world.messages() - messages;
  f.segments = world.segments() - segments;
  f.moments = world.rounds() - moments;
  f.frames = world.network_counters().sent - frames;
}

}  // namespace

ExpertLoad expert_load_from(const std::string& text, int experts) {
  ExpertLoad load;
  if (text.empty() || text == "even") return load;
  if (text.starts_with("zipf:")) {
    const double exponent = std::strtod(text.c_str() + 5, nullptr);
    for (int r = 1; r <= experts; ++r) load.shares.push_back(std::pow(r, -exponent));
    return load;
  }
  std::ifstream file(text);
  if (!file) throw Error("the load is {}, must be even, zipf:EXPONENT or a file of {} numbers", text, experts);
  for (double share = 0; file >> share;) load.shares.push_back(share);
  if (static_cast<int>(load.shares.size()) != experts || *std::min_element(load.shares.begin(), load.shares.end()) < 0)
    throw Error("{} has {} numbers, must have {}, one an expert, none below 0", text, load.shares.size(), experts);
  return load;
}

StepFigures simulate_step(const StepOptions& options) {
  StepFigures figures;
  const int replicas = options.config.layout.replicas;
  figures.fold = {replicas, options.replicas_simulated == 0 ? replicas : options.replicas_simulated};
  figures.world = folded(options.config, figures.fold);
  Config& config = figures.world;
  config.device.kind = "cpu";
  config.device.threads = 1;
  config.train.steps = std::max<std::int64_t>(2, config.train.steps);  // the last one would be saved
  config.evaluate.every_steps = config.checkpoint.every_steps = 0;
  Run under_way{.figures = figures};
  auto begin = std::chrono::steady_clock::now();
  SimWorld world(
      config, world_options(options, config, figures.fold),
      [&](std::int64_t now_us, std::uint32_t, const Envelope& envelope) { under_way.see(now_us, envelope); });
  figures.set_up_s = seconds_since(begin);
  figures.actors = place_actors(config).size();
  begin = std::chrono::steady_clock::now();
  run(world, under_way);
  figures.simulated_s = seconds_since(begin);
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  figures.peak_bytes = static_cast<std::size_t>(used.ru_maxrss) * 1024;
  return figures;
}

std::string to_text(const StepFigures& f) {
  const LayoutConfig& l = f.world.layout;
  const double devices = static_cast<double>(l.nodes), all = f.seconds * devices;
  std::string text = fmt::format(
      "{} on {}: {} of {} replicas simulated, {} stages, {} shards a stage: {} devices, {} actors, {} microbatches\n",
      f.world.name, f.world.hardware.name, f.fold.simulated, f.fold.replicas, l.stages, l.expert_shards, l.nodes,
      f.actors, f.world.train.microbatches);
  const double tokens = static_cast<double>(f.world.train.batch_sequences) * f.world.train.sequence_length;
  const double flops = flops_per_trained_token(f.world) * tokens / f.seconds / devices;
  text += fmt::format("step: {:.3f} s, decided after {:.3f} s; {:.0f} TFLOP/s a device, MFU {:.1f} %\n", f.seconds,
                      f.decided_s, flops * 1e-12, 100 * flops / (f.world.peak_gflops() * 1e9));
  for (const auto& [bin, seconds] : f.device_seconds)
    text += fmt::format("  {:<12}{:>8.3f} s a device  {:>5.1f} %\n", bin, seconds / devices, 100 * seconds / all);
  text += fmt::format("{} messages, {} frames, {} segments, {} moments\n", f.messages, f.frames, f.segments, f.moments);
  for (const auto& [kind, count] : f.kinds)
    text += fmt::format("  {:<20}{:>12}  from {:>9.3f} s to {:>9.3f} s\n", kind, count.messages, count.first_s,
                        count.last_s);
  text += fmt::format("set up in {:.1f} s, simulated in {:.1f} s ({:.2f} us a message), {:.2f} GB\n", f.set_up_s,
                      f.simulated_s, f.simulated_s * 1e6 / static_cast<double>(std::max<std::uint64_t>(1, f.messages)),
                      static_cast<double>(f.peak_bytes) * 1e-9);
  return text;
}

}  // namespace troupe
