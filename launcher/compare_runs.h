// Runs side by side, as values: what differs in their configurations, and what came of them. Pure, but for reading.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/config.h"
#include "launcher/run_metrics.h"

namespace troupe {

struct ComparedRun {
  std::string name;
  Config config;
  RunMetrics metrics;
  std::int64_t version = -1;  // of its last checkpoint; -1: it has none
  std::string digest;         // of all its weights
};

// Reads what is there of a run. Throws Error: no run's folder, or it has done no step.
ComparedRun read_compared_run(const std::string& path);

// A key that isn't the same in all: its values, "" where it is absent.
struct ConfigDifference {
  std::string key;
  bool numbers = false;  // loss and weights depend on it
  std::vector<std::string> values;
};
std::vector<ConfigDifference> config_differences(const std::vector<Config>& configs);

// The first step that both have and whose losses differ in any bit, with the losses; none: they never do.
struct LossDifference {
  double step = 0, first = 0, second = 0;
};
std::optional<LossDifference> first_loss_difference(const RunMetrics& first, const RunMetrics& second);
// Steps that both have.
std::size_t common_steps(const RunMetrics& first, const RunMetrics& second);

// A line of the table: what it is, and a text for each run, "-" where a run has none.
struct ComparedLine {
  std::string what;
  std::vector<std::string> values;
};
std::vector<ComparedLine> compared_lines(const std::vector<ComparedRun>& runs);

// All of it: at most 80 columns for two runs.
std::string compared_table(const std::vector<ComparedRun>& runs);

}  // namespace troupe
