// Every legal way to lay a run over so many devices, the quickest first.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launcher/forecast/fit.h"
#include "launcher/forecast/step.h"

namespace troupe {

// One node a device, at most one stage actor and one shard actor on each, none without an actor, experts cut evenly.
// Everything but nodes, replicas, stages and expert_shards is as config.layout has it.
std::vector<LayoutConfig> legal_layouts(const Config& config, int devices);
// Why there is none, with what to change; "" when there are some.
std::string why_no_layout(const Config& config, int devices);

Config with_layout(const Config& config, const LayoutConfig& layout);

struct RankedLayout {
  LayoutConfig layout;
  StepBins bins;
  double seconds = 0;
};
// By seconds(config, cluster) if it is given, else by the estimate, which fills the bins in any case.
std::vector<RankedLayout> rank_layouts(const Config& config, const Cluster& cluster, const StepSeconds& seconds = {});

// A step as the production actors did it on simulated devices.
struct SimulatedStep {
  double seconds = 0;
  std::map<std::string, double> bins = {};  // of the bill, seconds of a device in the mean
  int replicas = 0;                         // that stood for all
  std::string why = {};                     // it could not be simulated, and nothing of the above is told
};

// Of the ranked the first so many that fit; no more than kChecksMax are looked at.
constexpr std::size_t kChecksMax = 400;
struct FittingLayout {
  RankedLayout ranked;
  Fit fit;
  std::optional<SimulatedStep> simulated = {};
};
std::vector<FittingLayout> fitting_layouts(const Config& config, const Cluster& cluster,
                                           const std::vector<RankedLayout>& ranked, std::size_t count,
                                           MemoryBook& book);

}  // namespace troupe
