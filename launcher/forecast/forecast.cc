#include "launcher/forecast/forecast.h"

#include <algorithm>
#include <cmath>

namespace troupe {

namespace {

Forecast told(const Config& config, const Cluster& cluster, const RankedLayout& laid, Fit fit) {
  Forecast told;
  told.hardware = cluster.hardware.name;
  told.devices = cluster.devices;
  told.laid = laid;
  told.fit = std::move(fit);
  told.tokens_per_step = static_cast<double>(config.train.batch_sequences) * config.train.sequence_length;
  told.steps = static_cast<double>(config.train.steps);
  told.dollars_per_hour = cluster.hardware.dollars_per_hour * cluster.devices;
  const HardwareConfig& h = cluster.hardware;
  told.peak = config.is_mixed() ? "bfloat16" : "float32";
  const double gflops = (config.is_mixed() ? h.bfloat16_gflops : h.float32_gflops) * h.compute_threads;
  told.mfu = told.tokens_per_second() * causal_flops_per_token(config.model, config.train.sequence_length) /
             (gflops * 1e9 * cluster.devices);
  return told;
}

Cluster with_links(Cluster cluster, double times) {
  cluster.hardware.inside_gbytes_per_second *= times;
  cluster.hardware.between_gbytes_per_second *= times;
  return cluster;
}

}  // namespace

Forecast forecast(const Config& config, const Cluster& cluster, MemoryBook& book, const StepSeconds& seconds) {
  RankedLayout laid{
      config.layout,
      step_bins(config, cluster, work_of(config.model, config.train.sequence_length, config.train.fp8_attention)), 0};
  laid.seconds = seconds ? seconds(config, cluster) : laid.bins.total();
  return told(config, cluster, laid, fit_of(book.of(config, cluster.devices), cluster.hardware));
}

Forecast best_forecast(const Config& config, const Cluster& cluster, MemoryBook& book, const StepSeconds& seconds) {
  const std::vector<RankedLayout> ranked = rank_layouts(config, cluster, seconds);
  const auto fitting = fitting_layouts(config, cluster, ranked, 1, book);
  const RankedLayout& best = fitting.empty() ? ranked[0] : fitting[0].ranked;
  return told(config, cluster, best,
              fit_of(book.of(with_layout(config, best.layout), cluster.devices), cluster.hardware));
}

double steps_for_dollars(const Forecast& forecast, double dollars) {
  const double one = forecast.dollars(1);
  return one > 0 ? std::min(forecast.steps, std::floor(dollars / one)) : forecast.steps;
}

double steps_for_days(const Forecast& forecast, double days) {
  return std::min(forecast.steps, std::floor(days * 86400 / forecast.laid.seconds));
}

std::optional<Forecast> devices_for_days(const Config& config, const HardwareConfig& hardware, double days,
                                         int devices_max, MemoryBook& book, const StepSeconds& seconds) {
  for (int devices = 1; devices <= devices_max; devices *= 2) {
    const Cluster cluster{hardware, devices};
    if (!why_untold(cluster).empty()) return std::nullopt;
    const std::vector<RankedLayout> ranked = rank_layouts(config, cluster, seconds);
    std::vector<RankedLayout> quick;
    for (const RankedLayout& one : ranked)
      if (one.seconds * static_cast<double>(config.train.steps) <= days * 86400) quick.push_back(one);
    const auto fitting = fitting_layouts(config, cluster, quick, 1, book);
    if (!fitting.empty()) return told(config, cluster, fitting[0].ranked, fitting[0].fit);
  }
  return std::nullopt;
}

std::vector<Change> changes(const Config& config, const Cluster& cluster, const std::vector<HardwareConfig>& others,
                            MemoryBook& book, const StepSeconds& seconds) {
  std::vector<Change> all;
  const auto add = [&](const std::string& name, const Cluster& changed) {
    Change change{name, std::nullopt, why_untold(changed)};
    if (change.why.empty()) change.why = why_no_layout(config, changed.devices);
    if (change.why.empty()) change.forecast = best_forecast(config, changed, book, seconds);
    all.push_back(std::move(change));
  };
  if (cluster.devices > 1) {
    add("links twice as quick", with_links(cluster, 2));
    add("links half as quick", with_links(cluster, 0.5));
  }
  for (const HardwareConfig& other : others) add(other.name, {other, cluster.devices});
  return all;
}

}  // namespace troupe
