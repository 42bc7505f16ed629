// A run's metrics as charts: `troupe plot RUN`, and a report's pictures.
#pragma once

#include <string>
#include <vector>

#include "launcher/svg_chart.h"

namespace troupe {

// Of those figures that the run's metrics.jsonl has: reward, held-out accuracy (sampled, greedy, pass@k), entropy,
// length of the answers, loss, held-out loss. Of a step told twice the later line counts. Empty: there are none.
std::vector<Chart> run_charts(const std::string& metrics_path);

}  // namespace troupe
