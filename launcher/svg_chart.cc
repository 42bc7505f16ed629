// Law of the layout: everything is placed from the four edges of the plot; the legend's entries follow one another by
// the width that their letters take at most.
#include "launcher/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"
#include "launcher/colours.h"
#include "launcher/svg_text.h"

namespace troupe {

namespace {

constexpr double kLeft = 58, kRight = 18, kTop = 62, kBottom = 44, kLegendRow = 18;
constexpr int kXTicks = 6, kYTicks = 5;
constexpr std::size_t kDotsMax = 40;         // points of a series that are drawn as dots too
constexpr std::size_t kDotsBesideMax = 12;   // the same where dashes are
constexpr std::size_t kLinePointsMax = 800;  // more are thinned: two points, the least and the most, for each bucket
constexpr double kLetter = 7;                // width of a letter of the legend, at most

struct Range {
  double low = 0, high = 1;
};

struct Plot {
  Range x, y;
  double left = 0, right = 0, top = 0, bottom = 0;
  double at_x(double value) const { return left + (value - x.low) / (x.high - x.low) * (right - left); }
  double at_y(double value) const { return bottom - (value - y.low) / (y.high - y.low) * (bottom - top); }
};

void widen(Range& range, double value, bool& any) {
  if (!std::isfinite(value)) return;
  range.low = any ? std::min(range.low, value) : value;
  range.high = any ? std::max(range.high, value) : value;
  any = true;
}

// False: nothing to draw.
bool ranges_of(const Chart& chart, Range& x, Range& y) {
  bool any_x = false, any_y = false;
  for (const ChartSeries& series : chart.series)
    for (const ChartPoint& p : series.points) {
      if (!std::isfinite(p.x) || !std::isfinite(p.y)) continue;
      widen(x, p.x, any_x);
      widen(y, p.y * chart.scale, any_y);
    }
  if (any_y && chart.from_zero) widen(y, 0, any_y);
  return any_x && any_y;
}

// A range with room in it, even of one value.
Range apart(Range range) {
  const double size = std::max(std::abs(range.low), std::abs(range.high));
  if (range.high - range.low > 1e-9 * size) return range;
  const double space = size == 0 ? 1 : size * 0.1;
  return {range.low - space, range.high + space};
}

std::vector<ChartPoint> thinned(const std::vector<ChartPoint>& points) {
  if (points.size() <= kLinePointsMax) return points;
  std::vector<ChartPoint> some;
  const std::size_t buckets = kLinePointsMax / 2;
  for (std::size_t b = 0; b < buckets; ++b) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(b * points.size() / buckets);
    const auto end = points.begin() + static_cast<std::ptrdiff_t>((b + 1) * points.size() / buckets);
    auto [low, high] = std::minmax_element(begin, end, [](const auto& p, const auto& q) { return p.y < q.y; });
    if (high < low) std::swap(low, high);
    some.push_back(*low);
    if (low != high) some.push_back(*high);
  }
  return some;
}

// A faint series has the colour of the one before, whose points it shows.
const char* colour_of(const Chart& chart, std::size_t index) {
  std::size_t number = 0;
  for (std::size_t s = 1; s <= index; ++s) number += chart.series[s].faint ? 0 : 1;
  return kColours[number % kColours.size()];
}

const char* class_of(const ChartSeries& series) { return series.faint ? "f" : series.dashed ? "l d" : "l"; }

std::string style_svg() {
  return "<style>.tc{color:#24292f;font:12px system-ui,sans-serif}.tc text{fill:currentColor}"
         ".tc .t{font-size:14px;font-weight:600}.tc .m{opacity:.72}.tc .g{stroke:currentColor;stroke-opacity:.13}"
         ".tc .a{stroke:currentColor;stroke-opacity:.5;fill:none}"
         ".tc .l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
         ".tc .d{stroke-dasharray:7 6;stroke-linecap:butt}"
         ".tc .f{fill:none;stroke-width:1;stroke-opacity:.33}"
         "@media(prefers-color-scheme:dark){.tc{color:#d0d7de}.tc .f{stroke-opacity:.45}}"
         "</style>\n";
}

double largest(const std::vector<double>& ticks) { return std::max(std::abs(ticks.front()), std::abs(ticks.back())); }

std::string axes_svg(const Chart& chart, const Plot& plot, const std::vector<double>& x_ticks,
                     const std::vector<double>& y_ticks) {
  std::string grid, numbers;
  const double x_step = x_ticks[1] - x_ticks[0], y_step = y_ticks[1] - y_ticks[0];
  for (const double tick : y_ticks) {
    const double y = plot.at_y(tick);
    grid += fmt::format("M{:.1f} {:.1f}H{:.1f}", plot.left, y, plot.right);
    numbers += fmt::format("<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}{}</text>", plot.left - 8,
                           y + 4, mark_text(tick, y_step, largest(y_ticks)), svg_escaped(chart.unit));
  }
  std::string marks = fmt::format("M{:.1f} {:.1f}H{:.1f}", plot.left, plot.bottom, plot.right);
  for (const double tick : x_ticks) {
    if (tick < plot.x.low - 1e-9 * x_step || tick > plot.x.high + 1e-9 * x_step) continue;
    const double x = plot.at_x(tick);
    marks += fmt::format("M{:.1f} {:.1f}v4", x, plot.bottom);
    numbers += fmt::format("<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x,
                           plot.bottom + 18, mark_text(tick, x_step, largest(x_ticks)));
  }
  return fmt::format("<path class=\"g\" d=\"{}\"/><path class=\"a\" d=\"{}\"/>\n{}\n", grid, marks, numbers) +
         fmt::format("<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                     (plot.left + plot.right) / 2, plot.bottom + 36, svg_escaped(chart.x_label));
}

std::string line_svg(const Chart& chart, const ChartSeries& series, const Plot& plot, const char* colour) {
  std::string path, dots;
  bool open = false;
  const bool dashes =
      std::any_of(chart.series.begin(), chart.series.end(), [](const ChartSeries& other) { return other.dashed; });
  const bool dotted = !series.faint && series.points.size() <= (dashes ? kDotsBesideMax : kDotsMax);
  for (const ChartPoint& p : thinned(series.points)) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y)) {
      open = false;
      continue;
    }
    const double x = plot.at_x(p.x), y = plot.at_y(p.y * chart.scale);
    path += fmt::format("{}{:.1f} {:.1f}", open ? "L" : "M", x, y);
    open = true;
    if (dotted)
      dots += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.7\" fill=\"{}\"><title>{}, {} {}: {}{}</title>"
          "</circle>",
          x, y, colour, svg_escaped(series.label), svg_escaped(chart.x_label), figure_text(p.x, true),
          figure_text(p.y * chart.scale), svg_escaped(chart.unit));
  }
  if (path.empty()) return "";
  return fmt::format("<path class=\"{}\" stroke=\"{}\" d=\"{}\"/>{}\n", class_of(series), colour, path, dots);
}

// The last value that is a number.
std::string last_text(const Chart& chart, const ChartSeries& series) {
  for (auto p = series.points.rbegin(); p != series.points.rend(); ++p)
    if (std::isfinite(p->y)) return figure_text(p->y * chart.scale) + chart.unit;
  return "";
}

// How far an entry reaches: line, label, last value, and room before the next one.
double entry_width(const std::string& label, const std::string& value) {
  return 26 + kLetter * static_cast<double>(letters(label) + letters(value)) + 24;
}

// Entries in rows, as many as they need.
std::string legend_svg(const Chart& chart, double width, int& rows) {
  std::string text;
  double x = kLeft;
  rows = 1;
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    if (chart.series[s].faint) continue;
    const std::string &label = chart.series[s].label, value = last_text(chart, chart.series[s]);
    const double wide = entry_width(label, value);
    if (x > kLeft && x + wide > width) {
      x = kLeft;
      ++rows;
    }
    const double y = 42 + (rows - 1) * kLegendRow;
    text += fmt::format(
        "<path class=\"{}\" stroke=\"{}\" d=\"M{:.1f} {:.0f}h20\"/><text x=\"{:.1f}\" y=\"{:.0f}\">{}<tspan dx=\"5\" "
        "font-weight=\"600\">{}</tspan></text>",
        class_of(chart.series[s]), colour_of(chart, s), x, y, x + 26, y + 4, svg_escaped(label), svg_escaped(value));
    x += wide;
  }
  return text + "\n";
}

std::string description(const Chart& chart) {
  std::string text;
  for (const ChartSeries& series : chart.series) {
    Chart alone;
    alone.scale = chart.scale;
    alone.series = {series};
    Range x, y;
    if (series.faint || !ranges_of(alone, x, y)) continue;
    text += fmt::format("{}{}: from {} {} to {}, between {}{} and {}{}, at last {}", text.empty() ? "" : "; ",
                        series.label, chart.x_label, figure_text(x.low, true), figure_text(x.high, true),
                        figure_text(y.low), chart.unit, figure_text(y.high), chart.unit, last_text(chart, series));
  }
  return text.empty() ? "nothing to show yet" : text;
}

// What stands in one chart's rectangle, its corner at 0, 0.
std::string inside_svg(const Chart& chart, double width, double height) {
  std::string text = fmt::format("<text class=\"t\" x=\"{}\" y=\"20\">{}</text>\n", kLeft, svg_escaped(chart.title));
  Range x, y;
  if (!ranges_of(chart, x, y))
    return text + fmt::format(
                      "<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">nothing to show yet"
                      "</text>\n",
                      width / 2, height / 2);
  x = apart(x);
  y = apart(y);
  const std::vector<double> x_ticks = nice_ticks(x.low, x.high, kXTicks), y_ticks = nice_ticks(y.low, y.high, kYTicks);
  int rows = 1;
  text += legend_svg(chart, width, rows);
  const double top = kTop + (rows - 1) * kLegendRow;
  const Plot plot{x, {y_ticks.front(), y_ticks.back()}, kLeft, width - kRight, top, height - kBottom};
  text += axes_svg(chart, plot, x_ticks, y_ticks);
  for (std::size_t s = 0; s < chart.series.size(); ++s)
    text += line_svg(chart, chart.series[s], plot, colour_of(chart, s));
  return text;
}

}  // namespace

std::vector<double> nice_ticks(double low, double high, int wanted) {
  CHECK(low < high, "marks of {}..{}", low, high);
  const double rough = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= std::max(last, first + 1); ++i) ticks.push_back(i * step);
  return ticks;
}

std::vector<ChartPoint> running_mean(const std::vector<ChartPoint>& points, int window) {
  std::vector<ChartPoint> means;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t begin = i + 1 > static_cast<std::size_t>(window) ? i + 1 - static_cast<std::size_t>(window) : 0;
    double sum = 0;
    for (std::size_t j = begin; j <= i; ++j) sum += points[j].y;
    means.push_back({points[i].x, sum / static_cast<double>(i + 1 - begin)});
  }
  return means;
}

std::string svg_charts(const std::vector<Chart>& charts, int columns, double width, double height) {
  const auto in_row = static_cast<std::size_t>(std::max(1, columns));
  const std::size_t rows = std::max<std::size_t>((charts.size() + in_row - 1) / in_row, 1);
  const double all_width = width * static_cast<double>(std::min(in_row, std::max<std::size_t>(charts.size(), 1)));
  std::string text = fmt::format(
                         "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"tc\" viewBox=\"0 0 {0:g} {1:g}\" "
                         "width=\"{0:g}\" height=\"{1:g}\">\n",
                         all_width, static_cast<double>(rows) * height) +
                     style_svg();
  for (std::size_t i = 0; i < charts.size(); ++i) {
    const std::size_t column = i % in_row, row = i / in_row;
    text += fmt::format("<g role=\"img\" transform=\"translate({:g} {:g})\">\n<title>{}</title><desc>{}</desc>\n",
                        static_cast<double>(column) * width, static_cast<double>(row) * height,
                        svg_escaped(charts[i].title), svg_escaped(description(charts[i]))) +
            inside_svg(charts[i], width, height) + "</g>\n";
  }
  return text + "</svg>\n";
}

}  // namespace troupe
