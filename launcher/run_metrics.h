// A run's metrics.jsonl as figures: what charts and comparisons are made of. Of a step told twice the later line counts.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace troupe {

// Numbers of a line by their keys; one that isn't finite is NaN.
using MetricLine = std::map<std::string, double>;

// Rows of each expert over the mean of its layer: 1 where the load is even.
struct LoadColumn {
  double step = 0;                        // the first that is in it
  int steps = 0;                          // whose mean it is
  std::vector<std::vector<double>> load;  // by layer, by expert
};
constexpr std::size_t kLoadColumnsMax = 400;  // more steps share columns, two and two, until it is less

struct RunMetrics {
  std::map<double, MetricLine> steps, answers, evaluations;  // by step or version
  std::vector<std::int64_t> expert_layers;
  std::vector<LoadColumn> load;
  nlohmann::json bill;  // the last one; null: there is none
  bool finished = false;
};

RunMetrics read_run_metrics(const std::string& metrics_path);

}  // namespace troupe
