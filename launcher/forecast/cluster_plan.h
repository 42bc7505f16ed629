// All that `troupe plan --cluster` tells of a run on one cluster, as a value; describe() and to_json() show it.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launcher/forecast/forecast.h"
#include "launcher/forecast/spot_runs.h"

namespace troupe {

struct ClusterLimits {  // 0: none
  double budget_dollars = 0, deadline_days = 0;
  double checkpoint_seconds = 60, recovery_seconds = 300;  // where devices may be taken away
  // Instead of recovery_seconds: of a run with this layout, as a simulated loss is. Empty: as it stands there.
  std::function<double(const Config& laid)> recovery = {};
  // The first so many layouts that fit are simulated, and ranked by that.
  std::size_t simulated = 0;
  std::function<SimulatedStep(const Config& laid)> simulate = {};
};

struct SpotRow {
  std::string name;
  double interval_seconds = 0;   // of work between checkpoints
  double lost = 0;               // share of the wall time
  double days = 0, dollars = 0;  // of the whole run, in the mean (Daly)
  SpotRuns drawn{};              // of the best interval and of copies
};

struct Reach {
  std::string limit;  // "$1,000,000", "30 days"
  double steps = 0, tokens = 0, days = 0, dollars = 0;
};

struct ClusterPlan {
  Config config;
  Cluster cluster;
  std::optional<Forecast> written;  // the layout of the configuration, if it has so many nodes
  std::size_t legal = 0;
  std::vector<FittingLayout> fitting;
  Forecast best;       // the quickest that fits, or the quickest of all; its time is simulated, if that was asked
  Forecast estimated;  // the same by the estimate, as `changes` are
  std::optional<Forecast> nearest;  // where nothing fits: what fills its memory least
  std::vector<Change> changes;
  double recovery_seconds = 0;  // that spot reckons with
  std::vector<SpotRow> spot;    // these three where something fits
  std::vector<Reach> reach;
  std::optional<Forecast> in_time;  // with a deadline: the fewest devices, in powers of two
  // Of the best layout; null: it was not simulated.
  const SimulatedStep* simulated() const;
};

// REQUIRES: why_untold and why_no_layout are empty.
ClusterPlan plan_on(const Config& config, const Cluster& cluster, const ClusterLimits& limits,
                    const std::vector<HardwareConfig>& others, const StepSeconds& seconds = {});
std::string describe(const ClusterPlan& plan, const ClusterLimits& limits);
nlohmann::json to_json(const ClusterPlan& plan);

}  // namespace troupe
