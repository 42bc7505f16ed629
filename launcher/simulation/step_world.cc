#include "launcher/simulation/step_world.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "actors/rules/placement.h"
#include "actors/rules/trainable.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/simulation/sim_world.h"
#include "launcher/typed_number.h"

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

std::size_t reports_of(const SimWorld& world, const std::string& kind) {
  return static_cast<std::size_t>(std::count_if(world.reports().begin(), world.reports().end(),
                                                [&](const Report& report) { return report.kind == kind; }));
}

bool has_reported(const SimWorld& world, const std::string& kind) {
  return !world.reports().empty() && world.reports().back().kind == kind;
}

// Everybody is brought to one state, and one step may begin.
void begin(SimWorld& world, std::uint32_t attempt = 0) {
  const std::size_t ready = reports_of(world, "ready");
  world.start({.attempt = attempt, .version = 0, .path = "", .weights_only = false, .allowance_us = 0});
  world.deliver({{Role::supervisor, 0}, kConductor, Pause{.on = true, .steps = 1}});
  CHECK(world.run_until([&] { return reports_of(world, "ready") > ready || !world.problem().empty(); },
                        world.now_us() + kStepMaxUs),
        "the world didn't begin: {}", world.owed());
  if (!world.problem().empty()) throw Error("the simulated run can't begin: {}", world.problem());
}

void run(SimWorld& world, Run& run) {
  StepFigures& f = run.figures;
  begin(world);
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

// The supervisor's part, as launcher/processes.cc has it: a host that is silent for limits.silence_ms is lost, another
// takes its place, and all are brought to one state.
LossFigures lose(const StepOptions& options, const StepFigures& undisturbed, std::uint32_t node) {
  const Config& config = undisturbed.world;
  LossFigures figures;
  figures.node = node;
  SimWorld world(config, world_options(options, config, undisturbed.fold),
                 [&](std::int64_t, std::uint32_t, const Envelope& envelope) {
                   figures.parts += std::holds_alternative<SnapshotPart>(envelope.message) ? 1 : 0;
                 });
  begin(world);
  const std::int64_t begin_us = world.now_us();
  const auto since_s = [&] { return static_cast<double>(world.now_us() - begin_us) * 1e-6; };
  const auto until = [&](double seconds) {
    bool due = false;
    world.events().at(begin_us + std::llround(seconds * 1e6), [&due] { due = true; });
    CHECK(world.run_until([&] { return due; }, kStepMaxUs), "the world stands still: {}", world.owed());
  };
  until(undisturbed.decided_s / 2);
  figures.parts = 0;
  world.kill(node);
  figures.lost_s = since_s();
  until(figures.lost_s + config.limits.silence_ms * 1e-3 + options.start_seconds);
  world.restart(node);
  figures.back_s = since_s();
  begin(world, 1);
  figures.ready_s = since_s();
  figures.version = nlohmann::json::parse(world.reports().back().json).at("version");
  const auto stepped = [&] { return has_reported(world, "step"); };
  CHECK(world.run_until(stepped, world.now_us() + kStepMaxUs), "the step has no end after a loss: {}", world.owed());
  CHECK(world.run_until([&] { return world.at_rest(); }, world.now_us() + kStepMaxUs),
        "the step's update has no end after a loss: {}", world.owed());
  figures.seconds = since_s();
  return figures;
}

double zipf_exponent(const std::string& load) {
  const std::string text = load.substr(std::strlen("zipf:"));
  const double exponent = std::strtod(text.c_str(), nullptr);
  if (!why_not_finite(text).empty() || exponent < 0)
    throw Error("the load is {}, must be zipf: and an exponent of 0 or more, as in zipf:0.5", load);
  return exponent;
}

}  // namespace

ExpertLoad expert_load_from(const std::string& text, int experts) {
  ExpertLoad load;
  if (text.empty() || text == "even") return load;
  if (text.starts_with("zipf:")) {
    const double exponent = zipf_exponent(text);
    for (int r = 1; r <= experts; ++r) load.shares.push_back(std::pow(r, -exponent));
    return load;
  }
  std::ifstream file(text);
  if (!file) throw Error("the load is {}, must be even, zipf:EXPONENT or a file of {} numbers", text, experts);
  for (double share = 0; file >> share;) load.shares.push_back(share);
  if (static_cast<int>(load.shares.size()) != experts || *std::min_element(load.shares.begin(), load.shares.end()) < 0)
    throw Error("{} has {} numbers, must have {}, one an expert, none below 0", text, load.shares.size(), experts);
  const double sum = std::accumulate(load.shares.begin(), load.shares.end(), 0.0);
  if (!(sum > 0 && std::isfinite(sum))) throw Error("{}: the sum of all shares is {}, must be above 0", text, sum);
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
  if (options.lose > 0 && figures.fold.times() > 1)
    throw Error("--lose needs all replicas simulated: a node that stands for several can't be lost as one");
  if (options.lose > 0 && (config.layout.nodes < 2 || config.recovery.copies == 0))
    throw Error(
        "--lose needs states with copies on other nodes (layout.nodes above 1, recovery.copies = 1): a checkpoint's "
        "disk is no part of the step's world");
  if (options.lose > config.layout.nodes)
    throw Error("--lose {}: there are {} nodes to lose", options.lose, config.layout.nodes);
  for (int i = 0; i < options.lose; ++i)
    figures.losses.push_back(
        lose(options, figures, static_cast<std::uint32_t>(std::int64_t{i} * config.layout.nodes / options.lose)));
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  figures.peak_bytes = static_cast<std::size_t>(used.ru_maxrss) * 1024;
  return figures;
}

namespace {

std::string losses_text(const StepFigures& f) {
  std::string text;
  double away_s = 0, restoring_s = 0, again_s = 0;
  for (const LossFigures& loss : f.losses) {
    const double share = 1 / static_cast<double>(f.losses.size()), more_s = loss.seconds - f.seconds;
    text += fmt::format(
        "node {} lost after {:.3f} s, replaced after {:.3f} s, all at version {} after {:.3f} s ({} parts of states "
        "from "
        "copies), the step done after {:.3f} s: {:.3f} s more\n",
        loss.node, loss.lost_s, loss.back_s, loss.version, loss.ready_s, loss.parts, loss.seconds, more_s);
    away_s += share * (loss.back_s - loss.lost_s);
    restoring_s += share * (loss.ready_s - loss.back_s);
    again_s += share * (more_s - (loss.ready_s - loss.lost_s));
  }
  if (f.losses.empty()) return text;
  return text +
         fmt::format(
             "a loss costs {:.3f} s: {:.3f} s until it is noticed and replaced, {:.3f} s to restore, {:.3f} s for what "
             "is done again; for troupe plan: --recovery-seconds {:.3f}\n",
             away_s + restoring_s + again_s, away_s, restoring_s, again_s, away_s + restoring_s);
}

}  // namespace

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
  text += losses_text(f);
  text += fmt::format("set up in {:.1f} s, simulated in {:.1f} s ({:.2f} us a message), {:.2f} GB\n", f.set_up_s,
                      f.simulated_s, f.simulated_s * 1e6 / static_cast<double>(std::max<std::uint64_t>(1, f.messages)),
                      static_cast<double>(f.peak_bytes) * 1e-9);
  return text;
}

}  // namespace troupe
