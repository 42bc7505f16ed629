#include <nlohmann/json.hpp>

#include "launcher/forecast/cluster_plan.h"

namespace troupe {

using nlohmann::json;

namespace {

json to_json(const LayoutConfig& l) {
  return {{"nodes", l.nodes}, {"replicas", l.replicas}, {"stages", l.stages}, {"expert_shards", l.expert_shards}};
}

json to_json(const ActorPlan& actor) {
  return {{"actor", to_string(actor.address)}, {"bytes", actor.total()}, {"host_bytes", actor.shared}};
}

json to_json(const Fit& fit) {
  json parts = json::array();
  for (const Contribution& one : fit.memory.parts) parts.push_back({{"what", one.what}, {"gbytes", one.gbytes}});
  return {{"fits", fit.fits()},
          {"device_gbytes", fit.memory.device_gbytes},
          {"host_gbytes", fit.memory.host_gbytes},
          {"largest_stage", to_json(fit.memory.stage)},
          {"largest_shard", fit.memory.shard.total() > 0 ? to_json(fit.memory.shard) : json(nullptr)},
          {"parts", std::move(parts)},
          {"advice", fit.advice}};
}

json to_json(const Forecast& f) {
  const StepBins& b = f.laid.bins;
  return {{"hardware", f.hardware},
          {"devices", f.devices},
          {"layout", to_json(f.laid.layout)},
          {"memory", to_json(f.fit)},
          {"step_seconds", f.laid.seconds},
          {"bins",
           {{"products", b.products},
            {"traffic", b.traffic},
            {"links", b.links},
            {"bubble", b.bubble},
            {"optimizer", b.optimizer}}},
          {"mfu", f.mfu},
          {"tokens_per_second", f.tokens_per_second()},
          {"steps", f.steps},
          {"tokens", f.steps * f.tokens_per_step},
          {"hours", f.hours(f.steps)},
          {"dollars", f.dollars(f.steps)}};
}

json to_json(const std::optional<SimulatedStep>& step) {
  if (!step) return nullptr;
  if (!step->why.empty()) return {{"why", step->why}};
  return {{"step_seconds", step->seconds}, {"device_seconds", step->bins}, {"replicas", step->replicas}};
}

json to_json(const std::optional<Forecast>& f) { return f ? to_json(*f) : json(nullptr); }

}  // namespace

json to_json(const ClusterPlan& plan) {
  json layouts = json::array(), changes = json::array(), spot = json::array(), reach = json::array();
  for (const FittingLayout& one : plan.fitting)
    layouts.push_back({{"layout", to_json(one.ranked.layout)},
                       {"step_seconds", one.ranked.seconds},
                       {"memory", to_json(one.fit)},
                       {"simulated", to_json(one.simulated)}});
  for (const Change& change : plan.changes)
    changes.push_back({{"name", change.name}, {"forecast", to_json(change.forecast)}, {"why", change.why}});
  for (const SpotRow& row : plan.spot)  // of a run that never ends, null
    spot.push_back({{"name", row.name},
                    {"interval_seconds", row.interval_seconds},
                    {"lost", row.lost},
                    {"days", row.days},
                    {"dollars", row.dollars},
                    {"drawn", row.drawn.runs == 0 ? json()
                                                  : json{{"runs", row.drawn.runs},
                                                         {"losses", row.drawn.losses},
                                                         {"hours", row.drawn.mean / 3600},
                                                         {"hours_5_percent", row.drawn.low / 3600},
                                                         {"hours_95_percent", row.drawn.high / 3600}}}});
  for (const Reach& r : plan.reach)
    reach.push_back(
        {{"limit", r.limit}, {"steps", r.steps}, {"tokens", r.tokens}, {"days", r.days}, {"dollars", r.dollars}});
  const HardwareConfig& h = plan.cluster.hardware;
  return {{"name", plan.config.name},
          {"hardware", h.name},
          {"devices", plan.cluster.devices},
          {"written", to_json(plan.written)},
          {"legal_layouts", plan.legal},
          {"layouts", std::move(layouts)},
          {"best", to_json(plan.best)},
          {"nearest_to_fitting", to_json(plan.nearest)},
          {"changes", std::move(changes)},
          {"recovery_seconds", plan.spot.empty() ? json() : json(plan.recovery_seconds)},
          {"spot", std::move(spot)},
          {"reach", std::move(reach)},
          {"in_time", to_json(plan.in_time)},
          {"source", h.source},
          {"vendor", h.vendor},
          {"measured", h.measured},
          {"assumed", h.assumed}};
}

}  // namespace troupe
