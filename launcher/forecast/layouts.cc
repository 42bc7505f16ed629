#include "launcher/forecast/layouts.h"

#include <fmt/format.h>

#include <algorithm>

namespace troupe {

namespace {

bool has_experts(const Config& config) { return config.model.is_moe_layer(config.model.layers_with_mtp() - 1); }

int stages_with_experts(const Config& config) {
  int count = 0;
  for (const StageShape& shape : stage_shapes(config)) count += has_expert_shards(config, shape) ? 1 : 0;
  return count;
}

// Divisors of the model's experts, largest first; 1 without experts.
std::vector<int> expert_cuts(const Config& config) {
  if (!has_experts(config)) return {1};
  std::vector<int> cuts;
  for (int e = config.model.n_routed_experts; e >= 1; --e)
    if (config.model.n_routed_experts % e == 0) cuts.push_back(e);
  return cuts;
}

}  // namespace

Config with_layout(const Config& config, const LayoutConfig& layout) {
  Config changed = config;
  changed.layout = layout;
  return changed;
}

std::vector<LayoutConfig> legal_layouts(const Config& config, int devices) {
  std::vector<LayoutConfig> legal;
  const std::vector<int> cuts = expert_cuts(config);
  LayoutConfig layout = config.layout;
  layout.nodes = devices;
  for (int stages = 1; stages <= std::min(config.model.num_hidden_layers, devices); ++stages) {
    layout.stages = stages;
    const int with_experts = stages_with_experts(with_layout(config, layout));
    for (int replicas = 1; replicas <= config.train.gradient_lanes; replicas *= 2) {
      for (const int shards : cuts) {
        const std::int64_t dense = std::int64_t{replicas} * stages, routed = std::int64_t{with_experts} * shards;
        if (dense > devices || routed > devices || dense + routed < devices) continue;
        layout.replicas = replicas;
        layout.expert_shards = shards;
        legal.push_back(layout);
      }
    }
  }
  return legal;
}

std::string why_no_layout(const Config& config, int devices) {
  if (!legal_layouts(config, devices).empty()) return "";
  const std::int64_t stages = std::int64_t{config.train.gradient_lanes} * config.model.num_hidden_layers;
  const std::int64_t shards =
      has_experts(config) ? std::int64_t{config.model.layers_with_mtp()} * expert_cuts(config)[0] : 0;
  if (stages + shards < devices)
    return fmt::format(
        "no layout gives {} devices work: {} stages (train.gradient_lanes = {}, times {} layers) and {} expert shards "
        "are "
        "the most there are; raise train.gradient_lanes, a power of two that divides train.microbatches, or take fewer "
        "devices",
        devices, stages, config.train.gradient_lanes, config.model.num_hidden_layers, shards);
  return fmt::format(
      "no layout gives {} devices work: replicas x stages, with stages x expert_shards where there are experts, must "
      "come "
      "to that many; take a number with more powers of two, or raise train.gradient_lanes ({})",
      devices, config.train.gradient_lanes);
}

std::vector<RankedLayout> rank_layouts(const Config& config, const Cluster& cluster, const StepSeconds& seconds) {
  const ModelWork work = work_of(config.model, config.train.sequence_length, config.train.fp8_attention);
  std::vector<RankedLayout> ranked;
  for (const LayoutConfig& layout : legal_layouts(config, cluster.devices)) {
    const Config laid = with_layout(config, layout);
    RankedLayout one{layout, step_bins(laid, cluster, work), 0};
    one.seconds = seconds ? seconds(laid, cluster) : one.bins.total();
    ranked.push_back(one);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const RankedLayout& a, const RankedLayout& b) { return a.seconds < b.seconds; });
  return ranked;
}

std::vector<FittingLayout> fitting_layouts(const Config& config, const Cluster& cluster,
                                           const std::vector<RankedLayout>& ranked, std::size_t count,
                                           MemoryBook& book) {
  std::vector<FittingLayout> fitting;
  for (std::size_t i = 0; i < std::min(kChecksMax, ranked.size()) && fitting.size() < count; ++i) {
    Fit fit = fit_of(book.of(with_layout(config, ranked[i].layout), cluster.devices), cluster.hardware);
    if (fit.fits()) fitting.push_back({ranked[i], std::move(fit)});
  }
  return fitting;
}

}  // namespace troupe
