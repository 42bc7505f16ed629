// troupe plan CONFIG --cluster FILE: reads what is asked for, and prints what launcher/forecast/ makes of it.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/forecast/cluster_plan.h"
#include "launcher/forecast/published.h"
#include "launcher/simulation/step_world.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

namespace fs = std::filesystem;

// Hardware files beside this one, without it and without processors: what else might be rented.
std::vector<HardwareConfig> beside(const HardwareFile& file) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(fs::path(file.path).parent_path()))
    if (entry.path().extension() == ".toml") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::vector<HardwareConfig> others;
  for (const std::string& path : paths) {
    const HardwareConfig other = load_hardware(path).hardware;
    if (other.name != file.hardware.name && other.compute_threads == 1) others.push_back(other);
  }
  return others;
}

void refuse_what_is_no_training(const Config& config, const std::string& path) {
  if (config.has_frozen())
    throw Error(
        "{}: train.trainable is \"experts\", and a forecast knows runs in which everything learns: set it to \"all\"",
        path);
  if (config.kind == "pretrain" || config.kind == "sft") return;
  throw Error("{}: kind is \"{}\", and a forecast knows the steps of \"pretrain\" and \"sft\" alone", path,
              config.kind);
}

void refuse_other_shapes(const Config& config, const std::string& path) {
  const ModelConfig& m = config.model;
  if (m.is_mla() && m.num_hidden_layers == 61 && m.hidden_size == 7168 && m.n_routed_experts == 256) return;
  throw Error("{}: --published compares runs of DeepSeek-V3's shape: name configs/deepseek_v3.toml", path);
}

Config on(Config config, const HardwareConfig& hardware) {
  config.hardware = hardware;
  config.device.threads = hardware.compute_threads;
  return config;
}

constexpr int kSimulatedMax = 64;  // devices, while a person waits

// The first device is lost half-way through a step and comes back: until all are in one state again.
double simulated_recovery(const Config& laid, double start_seconds) {
  if (laid.layout.nodes < 2 || laid.layout.nodes > kSimulatedMax)
    throw Error(
        "--start-seconds: a loss is simulated of 2 to {} devices, not of {}: give --recovery-seconds, from `troupe "
        "simulate CONFIG --step --cluster FILE --lose 1`",
        kSimulatedMax, laid.layout.nodes);
  start_log("plan", "", LogLevel::error);  // the world's own lines are of no interest here
  StepOptions step;
  step.config = laid;
  step.config.recovery.copies = 1;
  step.lose = 1;
  step.start_seconds = start_seconds;
  const LossFigures loss = simulate_step(step).losses.front();
  return loss.ready_s - loss.lost_s;
}

// The most replicas that divide all and whose devices are few enough to wait for; at least two, which a fold needs.
int replicas_simulated(const LayoutConfig& layout) {
  if (layout.nodes <= kSimulatedMax) return layout.replicas;
  int most = std::min(2, layout.replicas);
  for (int replicas = 2; replicas < layout.replicas; ++replicas)
    if (layout.replicas % replicas == 0 && layout.nodes / layout.replicas * replicas <= kSimulatedMax) most = replicas;
  return most;
}

SimulatedStep simulated_step(const Config& laid) try {
  start_log("plan", "", LogLevel::error);
  const LayoutConfig& l = laid.layout;
  const int replicas = replicas_simulated(l);
  std::fprintf(stderr, "simulating a step on %d %s: %d replicas (%d of them), %d stages, %d expert shards a stage\n",
               l.nodes, laid.hardware.name.c_str(), l.replicas, replicas, l.stages, l.expert_shards);
  if (replicas == l.replicas && l.nodes > kSimulatedMax)
    throw Error("{} devices in {} replicas can't be folded to {}", l.nodes, l.replicas, kSimulatedMax);
  StepOptions step;
  step.config = laid;
  step.replicas_simulated = replicas;
  const StepFigures figures = simulate_step(step);
  SimulatedStep told{.seconds = figures.seconds, .replicas = replicas};
  for (const auto& [bin, seconds] : figures.device_seconds) told.bins[bin] = seconds / figures.world.layout.nodes;
  return told;
} catch (const Error& error) {
  return {.why = error.what()};
}

}  // namespace

int plan_clusters(const PlanOptions& options) {
  const Config read = load_config(options.config_path, options.sets);
  refuse_what_is_no_training(read, options.config_path);
  ClusterLimits limits{options.budget_dollars, options.deadline_days, options.checkpoint_seconds,
                       options.recovery_seconds};
  if (options.start_seconds)
    limits.recovery = [&](const Config& laid) { return simulated_recovery(laid, *options.start_seconds); };
  limits.simulated = static_cast<std::size_t>(options.simulate);
  limits.simulate = simulated_step;
  nlohmann::json all = nlohmann::json::array();
  for (const std::string& name : options.clusters) {
    const HardwareFile file = load_hardware(name);
    const Cluster cluster{file.hardware, options.gpus > 0 ? options.gpus : read.layout.nodes};
    const Config config = on(read, file.hardware);
    if (const std::string why = why_untold(cluster); !why.empty()) throw Error("{}: {}", file.path, why);
    if (const std::string why = why_no_layout(config, cluster.devices); !why.empty())
      throw Error("{}: {}", options.config_path, why);
    if (options.published) {
      refuse_other_shapes(config, options.config_path);
      std::fputs(describe_published(config.model, file.hardware).c_str(), stdout);
      continue;
    }
    const ClusterPlan plan = plan_on(config, cluster, limits, beside(file));
    all.push_back(to_json(plan));
    if (!options.json) std::fprintf(stdout, "%s%s", all.size() > 1 ? "\n" : "", describe(plan, limits).c_str());
  }
  if (options.json && !options.published) std::fprintf(stdout, "%s\n", all.dump(2).c_str());
  return 0;
}

}  // namespace troupe
