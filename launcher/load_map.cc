#include "launcher/load_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace troupe {

HeatMap load_map(const RunMetrics& metrics) {
  HeatMap map{
      .title = "load of the experts, over the mean of their layer", .x_label = "step", .columns = {}, .bands = {}};
  if (metrics.load.empty()) return map;
  std::size_t rows = 0;
  for (const auto& layer : metrics.load.front().load) rows += layer.size();
  const bool each = rows <= kLoadRowsMax;
  map.title = each ? "load of each expert (a row), over the mean of its layer"
                   : "load of each layer's busiest expert, over the mean";
  for (std::size_t l = 0; l < metrics.load.front().load.size(); ++l) {
    const std::size_t experts = metrics.load.front().load[l].size();
    const std::string label = l < metrics.expert_layers.size() ? fmt::format("layer {}", metrics.expert_layers[l]) : "";
    map.bands.push_back({label, std::vector<std::vector<double>>(each ? experts : 1)});
  }
  for (const LoadColumn& column : metrics.load) {
    map.columns.push_back(column.step);
    map.end = column.step + column.steps;
    for (std::size_t l = 0; l < column.load.size(); ++l) {
      const std::vector<double>& load = column.load[l];
      if (each)
        for (std::size_t e = 0; e < load.size(); ++e) map.bands[l].rows[e].push_back(load[e]);
      else
        map.bands[l].rows[0].push_back(load.empty() ? std::nan("") : *std::max_element(load.begin(), load.end()));
    }
  }
  return map;
}

}  // namespace troupe
