// Line charts as SVG, without any library: to be opened as a file or put into a page as they are. Light and dark follow
// the reader's system; a screen reader gets a title and a description; points tell their values when pointed at.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct ChartPoint {
  double x = 0, y = 0;  // a y that isn't finite breaks the line
};

struct ChartSeries {
  std::string label;
  std::vector<ChartPoint> points;  // by x
  bool faint = false;              // thin and pale, without a legend: the points that the series before is the mean of
  bool dashed = false;
};

struct Chart {
  std::string title, x_label, unit;  // unit: behind the numbers of y, as in "%"
  double scale = 1;                  // of y: 100 for shares shown in percent
  bool from_zero = false;            // the axis of y has 0 on it
  std::vector<ChartSeries> series;   // eight colours, then they come again
};

// All in one picture, so many in a row.
std::string svg_charts(const std::vector<Chart>& charts, int columns = 2, double width = 520, double height = 300);

// Multiples of 1, 2 or 5 x 10^n about `wanted` of which cover low..high. REQUIRES: low < high, both finite.
std::vector<double> nice_ticks(double low, double high, int wanted);

// The running mean over `window` points: those at and before each.
std::vector<ChartPoint> running_mean(const std::vector<ChartPoint>& points, int window);

}  // namespace troupe
