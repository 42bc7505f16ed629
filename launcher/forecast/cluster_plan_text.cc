#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "launcher/forecast/cluster_plan.h"

namespace troupe {

namespace {

std::string in_units(double value) {
  for (const auto& [size, unit] : {std::pair{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}})
    if (value >= size) return fmt::format("{:.4g}{}", value / size, unit);
  return fmt::format("{:.4g}", value);
}

std::string dollars(double value) {
  return value >= 1e6 ? fmt::format("${:.3f} M", value * 1e-6) : fmt::format("${:.2f}", value);
}

std::string span(double hours) {
  if (hours >= 48) return fmt::format("{:.1f} days", hours / 24);
  if (hours >= 1) return fmt::format("{:.2f} hours", hours);
  return hours * 60 >= 2 ? fmt::format("{:.1f} minutes", hours * 60) : fmt::format("{:.1f} seconds", hours * 3600);
}

std::string layout_text(const LayoutConfig& l) {
  return fmt::format("{} replicas x {} stages, {} expert shards a stage", l.replicas, l.stages, l.expert_shards);
}

std::string memory_text(const Fit& fit, const HardwareConfig& h) {
  std::string text = fmt::format("{:.1f} of {:g} GB on a device", fit.memory.device_gbytes, h.memory_gbytes);
  if (h.host_gbytes > 0) text += fmt::format(", {:.1f} of {:g} GB in its host", fit.memory.host_gbytes, h.host_gbytes);
  return text;
}

std::string fit_text(const Fit& fit, const HardwareConfig& h) {
  const auto actor = [](const ActorPlan& a) {
    return fmt::format("{} {:.1f} GB", to_string(a.address), static_cast<double>(a.total()) * 1e-9);
  };
  std::string text = fmt::format("  {}: {}\n", fit.fits() ? "fits" : "does not fit", memory_text(fit, h));
  text += fmt::format("  the largest actors: {}", actor(fit.memory.stage));
  if (fit.memory.shard.total() > 0) text += ", " + actor(fit.memory.shard);
  text += "; most of it:";
  for (std::size_t i = 0; i < 3; ++i)
    text += fmt::format(" {} {:.1f} GB,", fit.memory.parts[i].what, fit.memory.parts[i].gbytes);
  text.back() = '\n';
  if (!fit.fits()) text += fmt::format("  to make it fit: {}\n", fit.advice);
  return text;
}

std::string bins_text(const SimulatedStep& step) {
  std::vector<std::pair<double, std::string>> bins;
  for (const auto& [bin, seconds] : step.bins) bins.emplace_back(-seconds, bin);
  std::sort(bins.begin(), bins.end());
  std::string text;
  for (const auto& [less, bin] : bins)
    if (-less > 0.0005 * step.seconds) text += fmt::format(", {} {:.1f} %", bin, -100 * less / step.seconds);
  return text;
}

// With a simulated step what comes of the step's length is of that one.
std::string forecast_text(const Forecast& f, const SimulatedStep* simulated = nullptr) {
  const StepBins& b = f.laid.bins;
  std::string text = fmt::format(
      "  {} {:.4g} s = products {:.3g} + memory traffic {:.3g} + links not hidden {:.3g} + bubble {:.3g} + optimizer "
      "{:.3g}\n",
      simulated != nullptr ? "estimated step" : "step", simulated != nullptr ? b.total() : f.laid.seconds, b.products,
      b.traffic, b.links, b.bubble, b.optimizer);
  if (simulated != nullptr)
    text += fmt::format("  simulated step {:.4g} s, by {} of {} replicas{}\n", simulated->seconds, simulated->replicas,
                        f.laid.layout.replicas, bins_text(*simulated));
  return text + fmt::format(
                    "  {} tokens/s, MFU {:.1f} % of the {} peak, attention counted as it is masked\n"
                    "  {:.0f} steps, {} tokens: {}, {:.4g} device-hours, {}\n",
                    in_units(f.tokens_per_second()), 100 * f.mfu, f.peak, f.steps,
                    in_units(f.steps * f.tokens_per_step), span(f.hours(f.steps)), f.hours(f.steps) * f.devices,
                    dollars(f.dollars(f.steps)));
}

std::string shown_text(const char* what, const Forecast& f, const HardwareConfig& h,
                       const SimulatedStep* simulated = nullptr) {
  return fmt::format("\n{}: {}\n", what, layout_text(f.laid.layout)) + fit_text(f.fit, h) + forecast_text(f, simulated);
}

std::string simulated_text(const FittingLayout& one) {
  if (!one.simulated) return "";
  return one.simulated->why.empty() ? fmt::format("  {:>11.4g}", one.simulated->seconds)
                                    : "  not simulated: " + one.simulated->why;
}

std::string layouts_text(const ClusterPlan& plan) {
  std::string text = fmt::format("\nlayouts: {} are legal; by estimated step time the first that fit{}\n", plan.legal,
                                 plan.simulated() != nullptr ? ", those simulated first, by that" : "");
  text += fmt::format("  {:>8} {:>6} {:>6} {:>9} {:>7} {:>9} {:>9}{}\n", "replicas", "stages", "shards", "step s",
                      "bubble", "device GB", "host GB", plan.simulated() ? "  simulated s" : "");
  for (const FittingLayout& one : plan.fitting) {
    const LayoutConfig& l = one.ranked.layout;
    text += fmt::format("  {:>8} {:>6} {:>6} {:>9.4g} {:>5.1f} % {:>9.1f} {:>9.1f}{}\n", l.replicas, l.stages,
                        l.expert_shards, one.ranked.seconds, 100 * one.ranked.bins.bubble / one.ranked.seconds,
                        one.fit.memory.device_gbytes, one.fit.memory.host_gbytes, simulated_text(one));
  }
  if (plan.fitting.empty()) text += "  none\n";
  return text;
}

std::string change_row(const std::string& name, const Forecast& f) {
  const std::string fits =
      f.fit.fits() ? "" : fmt::format("; does not fit, needs {:.3g} times the memory", f.fit.filled);
  return fmt::format("  {:<24} {:>9.4g} {:>7.1f} {:>14} {:>14}   {}\n", name, f.laid.seconds, 100 * f.mfu,
                     span(f.hours(f.steps)), dollars(f.dollars(f.steps)), layout_text(f.laid.layout) + fits);
}

std::string changes_text(const ClusterPlan& plan) {
  std::string text =
      fmt::format("\nhow it changes, each with its own best layout, estimated\n  {:<24} {:>9} {:>7} {:>14} {:>14}\n",
                  "", "step s", "MFU %", "time", "cost");
  text += change_row("as it is", plan.estimated);
  for (const Change& change : plan.changes)
    text += change.forecast ? change_row(change.name, *change.forecast)
                            : fmt::format("  {:<24} {}\n", change.name, change.why);
  return text;
}

// What a run may take, beside what it takes where nothing is taken away.
std::string drawn_text(const ClusterPlan& plan) {
  const Forecast& best = plan.best;
  const auto took = [](double seconds) {  // finer than elsewhere: what losses cost may be little
    return seconds >= 48 * 3600 ? fmt::format("{:.2f} days", seconds / 86400) : span(seconds / 3600);
  };
  std::string text;
  for (const SpotRow& row : plan.spot) {
    const SpotRuns& r = row.drawn;
    if (r.runs == 0) continue;
    const double a_second = plan.cluster.hardware.spot_dollars_per_hour * best.devices / 3600;
    text += fmt::format("  {}: {:.1f} losses, {} (90 % of {} drawn: {} to {}), {} ({} to {})\n", row.name, r.losses,
                        took(r.mean), r.runs, took(r.low), took(r.high), dollars(r.mean * a_second),
                        dollars(r.low * a_second), dollars(r.high * a_second));
  }
  if (text.empty()) return text;
  return fmt::format("runs with losses drawn by chance, beside {} and {} on demand, where none are taken away:\n",
                     took(best.hours(best.steps) * 3600), dollars(best.dollars(best.steps))) +
         text;
}

std::string spot_text(const ClusterPlan& plan, const ClusterLimits& limits) {
  if (plan.spot.empty()) return "";
  const HardwareConfig& h = plan.cluster.hardware;
  std::string text = fmt::format(
      "\non devices that may be taken away: ${:g} an hour, {:g} losses a device-hour, one in {} anywhere; a checkpoint "
      "stops training for {:g} s, a recovery takes {:.4g} s{}\n  {:<42} {:>10} {:>7} {:>12} {:>14}\n",
      h.spot_dollars_per_hour, h.preemptions_per_hour,
      span(between_losses(h.preemptions_per_hour, plan.cluster.devices) / 3600), limits.checkpoint_seconds,
      plan.recovery_seconds, limits.recovery ? ", as simulated" : "", "checkpoint every", "interval s", "lost", "time",
      "cost");
  for (const SpotRow& row : plan.spot)
    text +=
        std::isfinite(row.days)
            ? fmt::format("  {:<42} {:>10.0f} {:>5.1f} % {:>12} {:>14}\n", row.name, row.interval_seconds,
                          100 * row.lost, span(row.days * 24), dollars(row.dollars))
            : fmt::format("  {:<42} {:>10.0f}   never ends: losses come before it\n", row.name, row.interval_seconds);
  return text + drawn_text(plan);
}

std::string reach_text(const ClusterPlan& plan, const ClusterLimits& limits) {
  if (limits.budget_dollars <= 0 && limits.deadline_days <= 0) return "";
  if (plan.nearest) return "\nno budget or deadline reaches anything here: no layout fits\n";
  std::string text;
  for (const Reach& r : plan.reach)
    text += fmt::format("\nwith {}: {:.0f} of {} steps ({:.1f} %), {} tokens, {:.2f} days, {}\n", r.limit, r.steps,
                        plan.config.train.steps, 100 * r.steps / static_cast<double>(plan.config.train.steps),
                        in_units(r.tokens), r.days, dollars(r.dollars));
  if (limits.deadline_days <= 0) return text;
  if (!plan.in_time)
    return text + fmt::format("no number of devices looked at does all steps in {:g} days\n", limits.deadline_days);
  const Forecast& f = *plan.in_time;
  return text + fmt::format("all steps in {:g} days: {} devices, {}, {}\n", limits.deadline_days, f.devices,
                            span(f.hours(f.steps)), dollars(f.dollars(f.steps)));
}

std::string sources_text(const HardwareConfig& h) {
  return fmt::format(
      "\n{}: {} ({})\n  the vendor's: {}\n  measured and published: {}\n  assumed: {}\n  the estimate takes experts "
      "evenly used, messages behind work wherever there is enough, and no failures\n",
      h.name, h.source, h.date, fmt::join(h.vendor, ", "), fmt::join(h.measured, ", "), fmt::join(h.assumed, ", "));
}

}  // namespace

std::string describe(const ClusterPlan& plan, const ClusterLimits& limits) {
  const HardwareConfig& h = plan.cluster.hardware;
  std::string text = fmt::format("{} on {} x {}, {} in a machine, ${:g} a device-hour\n", plan.config.name,
                                 plan.cluster.devices, h.name, plan.cluster.beside(), h.dollars_per_hour);
  if (plan.written)
    text += shown_text("as written", *plan.written, h);
  else
    text += fmt::format("\nas written it is for {} devices: {}\n", plan.config.layout.nodes,
                        layout_text(plan.config.layout));
  text += layouts_text(plan);
  text += shown_text(plan.nearest ? "the quickest" : "the quickest that fits", plan.best, h, plan.simulated());
  if (plan.nearest && plan.legal > 1) text += shown_text("the nearest to fitting", *plan.nearest, h);
  return text + reach_text(plan, limits) + changes_text(plan) + spot_text(plan, limits) + sources_text(h);
}

}  // namespace troupe
