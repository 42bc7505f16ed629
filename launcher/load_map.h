// The load of a run's experts as a heat map over layers and steps.
#pragma once

#include "launcher/heat_map_svg.h"
#include "launcher/run_metrics.h"

namespace troupe {

// A row for each expert, in a band for each layer; of models with more than kLoadRowsMax experts in all a row for each
// layer, its busiest expert's. Without bands: the run tells nothing of experts.
HeatMap load_map(const RunMetrics& metrics);
constexpr std::size_t kLoadRowsMax = 256;

}  // namespace troupe
