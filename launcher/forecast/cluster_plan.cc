#include "launcher/forecast/cluster_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace troupe {

namespace {

constexpr std::size_t kShown = 5;
constexpr int kDevicesMax = 1 << 16;

std::vector<SpotRow> spot_rows(const Forecast& best, const Config& config, const HardwareConfig& hardware,
                               const ClusterLimits& limits, double& recovery_seconds) {
  if (hardware.spot_dollars_per_hour == 0 || hardware.preemptions_per_hour == 0) return {};
  recovery_seconds = limits.recovery ? limits.recovery(with_layout(config, best.laid.layout)) : limits.recovery_seconds;
  Losses losses{between_losses(hardware.preemptions_per_hour, best.devices), limits.checkpoint_seconds,
                recovery_seconds};
  std::vector<SpotRow> rows;
  const auto add = [&](const std::string& name, const Losses& with, double interval) {
    const double wall = wall_per_work(with, interval), hours = best.hours(best.steps) * wall;
    rows.push_back({name,
                    interval,
                    lost_share(with, interval),
                    hours / 24,
                    hours * hardware.spot_dollars_per_hour * best.devices,
                    {}});
  };
  const auto draw = [&](const Losses& with) {
    rows.back().drawn =
        draw_spot_runs(with, rows.back().interval_seconds, best.hours(best.steps) * 3600, config.train.seed);
  };
  add("the best interval (Daly)", losses, daly_interval(losses));
  draw(losses);
  add("the best interval (Young)", losses, young_interval(losses));
  for (const double minutes : {5.0, 15.0, 60.0}) add(fmt::format("{} minutes", minutes), losses, minutes * 60);
  if (config.checkpoint.every_steps > 0)
    add(fmt::format("checkpoint.every_steps = {}", config.checkpoint.every_steps), losses,
        config.checkpoint.every_steps * best.laid.seconds);
  losses.checkpoint_seconds = 0;
  add("recovery.copies = 1: a step is done again", losses, best.laid.seconds);
  draw(losses);
  return rows;
}

const LayoutConfig& nearest_layout(const Config& config, const Cluster& cluster,
                                   const std::vector<RankedLayout>& ranked, MemoryBook& book) {
  const auto filled = [&](const RankedLayout& one) {
    return fit_of(book.of(with_layout(config, one.layout), cluster.devices), cluster.hardware).filled;
  };
  const auto end = ranked.begin() + static_cast<std::ptrdiff_t>(std::min(kChecksMax, ranked.size()));
  return std::min_element(ranked.begin(), end,
                          [&](const RankedLayout& a, const RankedLayout& b) { return filled(a) < filled(b); })
      ->layout;
}

// Simulated ones come first, by their steps; those that could not be simulated stay behind them.
void simulate_first(std::vector<FittingLayout>& fitting, const Config& config, const ClusterLimits& limits) {
  const std::size_t count = std::min(limits.simulated, fitting.size());
  for (std::size_t i = 0; i < count; ++i)
    fitting[i].simulated = limits.simulate(with_layout(config, fitting[i].ranked.layout));
  std::stable_sort(fitting.begin(), fitting.begin() + static_cast<std::ptrdiff_t>(count),
                   [](const FittingLayout& a, const FittingLayout& b) {
                     const bool known = a.simulated->why.empty(), other_known = b.simulated->why.empty();
                     return known != other_known ? known : known && a.simulated->seconds < b.simulated->seconds;
                   });
}

Reach reach_of(const Forecast& best, const std::string& limit, double steps) {
  return {limit, steps, steps * best.tokens_per_step, best.hours(steps) / 24, best.dollars(steps)};
}

}  // namespace

const SimulatedStep* ClusterPlan::simulated() const {
  const bool was = !fitting.empty() && fitting[0].simulated && fitting[0].simulated->why.empty();
  return was ? &*fitting[0].simulated : nullptr;
}

ClusterPlan plan_on(const Config& config, const Cluster& cluster, const ClusterLimits& limits,
                    const std::vector<HardwareConfig>& others, const StepSeconds& seconds) {
  ClusterPlan plan;
  MemoryBook book;
  plan.config = config;
  plan.cluster = cluster;
  if (config.layout.nodes == cluster.devices) plan.written = forecast(config, cluster, book, seconds);
  const std::vector<RankedLayout> ranked = rank_layouts(config, cluster, seconds);
  plan.legal = ranked.size();
  plan.fitting = fitting_layouts(config, cluster, ranked, kShown, book);
  simulate_first(plan.fitting, config, limits);
  plan.changes = changes(config, cluster, others, book, seconds);
  const LayoutConfig& best = plan.fitting.empty() ? ranked[0].layout : plan.fitting[0].ranked.layout;
  plan.estimated = plan.best = forecast(with_layout(config, best), cluster, book);
  if (const SimulatedStep* step = plan.simulated())
    plan.best = forecast(with_layout(config, best), cluster, book,
                         [step](const Config&, const Cluster&) { return step->seconds; });
  if (plan.fitting.empty()) {
    plan.nearest = forecast(with_layout(config, nearest_layout(config, cluster, ranked, book)), cluster, book, seconds);
    return plan;
  }
  plan.spot = spot_rows(plan.best, config, cluster.hardware, limits, plan.recovery_seconds);
  if (limits.budget_dollars > 0)
    plan.reach.push_back(reach_of(plan.best, fmt::format("${:.0f}", limits.budget_dollars),
                                  steps_for_dollars(plan.best, limits.budget_dollars)));
  if (limits.deadline_days > 0) {
    plan.reach.push_back(reach_of(plan.best, fmt::format("{:g} days", limits.deadline_days),
                                  steps_for_days(plan.best, limits.deadline_days)));
    plan.in_time = devices_for_days(config, cluster.hardware, limits.deadline_days, kDevicesMax, book, seconds);
  }
  return plan;
}

}  // namespace troupe
