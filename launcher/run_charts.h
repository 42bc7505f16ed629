// A run's metrics as charts: `troupe plot RUN`, a report's pictures, and `troupe compare`.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launcher/run_metrics.h"
#include "launcher/svg_chart.h"

namespace troupe {

// Of those figures that the run has: reward, held-out accuracy (sampled, greedy, pass@k), entropy, length of the
// answers, loss, held-out loss, the busiest expert's load, tokens a second, MFU, cost. Empty: there are none.
std::vector<Chart> run_charts(const RunMetrics& metrics);
std::vector<Chart> run_charts(const std::string& metrics_path);

// Several runs' curves in the same charts, each by its name: also the loss by tokens.
std::vector<Chart> compared_charts(const std::vector<std::pair<std::string, RunMetrics>>& runs);

}  // namespace troupe
