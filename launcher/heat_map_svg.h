// A heat map as SVG: rows in bands, columns by steps, colours for how far a value is from its mean: blue below, pale
// where it is even, orange above; the colour-blind tell these apart, on light and on dark ground.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct HeatBand {
  std::string label;                      // "layer 2"
  std::vector<std::vector<double>> rows;  // each by column; 1: even. Not finite: nothing is drawn
};

struct HeatMap {
  std::string title, x_label;
  std::vector<double> columns;  // where each begins, rising
  double end = 0;               // of the last
  std::vector<HeatBand> bands;
};

std::string heat_map_svg(const HeatMap& map, double width = 1040);

}  // namespace troupe
