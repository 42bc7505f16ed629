// Colours are by the value's power of two, from a quarter to four times, in classes; what is alike side by side is one
// rectangle and a class is one path, so that the file stays small.
#include "launcher/heat_map_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launcher/svg_chart.h"
#include "launcher/svg_text.h"

namespace troupe {

namespace {

constexpr double kLeft = 58, kRight = 18, kTop = 70, kBottom = 46, kBandGap = 5;
constexpr double kRowsHeight = 260, kRowLeast = 2, kRowMost = 18;  // of all rows together, and of one
constexpr int kClasses = 17, kXTicks = 10;
constexpr double kPowerMost = 2;  // of two, up and down
constexpr std::size_t kRectanglesMax = 40'000;

struct Colour {
  double red = 0, green = 0, blue = 0;
};
constexpr std::array<Colour, 3> kLight = {{{33, 102, 172}, {243, 243, 238}, {179, 74, 4}}},
                                kDark = {{{111, 177, 255}, {38, 44, 52}, {255, 159, 67}}};

int class_of(double value) {
  const double power = value > 0 ? std::clamp(std::log2(value), -kPowerMost, kPowerMost) : -kPowerMost;
  return static_cast<int>(std::lround((power + kPowerMost) / (2 * kPowerMost) * (kClasses - 1)));
}

std::string hex(const std::array<Colour, 3>& scale, int number) {
  const double at = 2.0 * number / (kClasses - 1);
  const Colour &low = scale[at < 1 ? 0 : 1], &high = scale[at < 1 ? 1 : 2];
  const double share = at < 1 ? at : at - 1;
  const auto mixed = [&](double a, double b) { return static_cast<int>(std::lround(a + (b - a) * share)); };
  return fmt::format("#{:02x}{:02x}{:02x}", mixed(low.red, high.red), mixed(low.green, high.green),
                     mixed(low.blue, high.blue));
}

std::string style_svg() {
  std::string light, dark;
  for (int c = 0; c < kClasses; ++c) {
    light += fmt::format(".hm .h{}{{fill:{}}}", c, hex(kLight, c));
    dark += fmt::format(".hm .h{}{{fill:{}}}", c, hex(kDark, c));
  }
  return "<style>.hm{color:#24292f;font:12px system-ui,sans-serif}.hm text{fill:currentColor}"
         ".hm .t{font-size:14px;font-weight:600}.hm .m{opacity:.72}.hm .a{stroke:currentColor;stroke-opacity:.5}" +
         light + "@media(prefers-color-scheme:dark){.hm{color:#d0d7de}" + dark + "}</style>\n";
}

struct Layout {
  double row = 0, left = kLeft, width = 0, height = 0;
  double first = 0, last = 1;
  double at_x(double step) const { return left + (step - first) / (last - first) * width; }
};

Layout layout_of(const HeatMap& map, double width) {
  std::size_t rows = 0;
  for (const HeatBand& band : map.bands) rows += band.rows.size();
  Layout layout;
  layout.row = std::clamp(kRowsHeight / static_cast<double>(std::max<std::size_t>(rows, 1)), kRowLeast, kRowMost);
  layout.width = width - kLeft - kRight;
  layout.height = layout.row * static_cast<double>(rows) +
                  kBandGap * static_cast<double>(std::max<std::size_t>(map.bands.size(), 1) - 1);
  layout.first = map.columns.empty() ? 0 : map.columns.front();
  layout.last = std::max(map.end, layout.first + 1);
  return layout;
}

// So many columns are drawn as one, by their mean.
std::size_t together(const HeatMap& map) {
  std::size_t cells = 0;
  for (const HeatBand& band : map.bands) cells += band.rows.size() * map.columns.size();
  return cells / kRectanglesMax + 1;
}

double mean_of(const std::vector<double>& row, std::size_t begin, std::size_t end) {
  double sum = 0;
  for (std::size_t i = begin; i < end; ++i) sum += row[i];
  return sum / static_cast<double>(end - begin);
}

using Paths = std::array<std::string, kClasses>;

void draw_row(const HeatMap& map, const Layout& layout, const std::vector<double>& row, double y, Paths& paths) {
  const std::size_t step = together(map), count = std::min(row.size(), map.columns.size());
  const auto begin_of = [&](std::size_t i) { return layout.at_x(i < count ? map.columns[i] : layout.last); };
  int open = -1;
  double x = 0;
  const auto close = [&](double until) {
    if (open >= 0)
      paths[static_cast<std::size_t>(open)] +=
          fmt::format("M{:.1f} {:.1f}H{:.1f}v{:.1f}H{:.1f}z", x, y, until, layout.row, x);
  };
  for (std::size_t i = 0; i < count; i += step) {
    const double value = mean_of(row, i, std::min(count, i + step));
    const int next = std::isfinite(value) ? class_of(value) : -1;
    if (next == open) continue;
    close(begin_of(i));
    open = next;
    x = begin_of(i);
  }
  close(begin_of(count));
}

std::string bands_svg(const HeatMap& map, const Layout& layout) {
  Paths paths;
  std::string labels, text;
  double y = kTop;
  for (const HeatBand& band : map.bands) {
    const double tall = layout.row * static_cast<double>(band.rows.size());
    labels += fmt::format("<text class=\"m\" x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft - 8,
                          y + tall / 2 + 4, svg_escaped(band.label));
    for (const std::vector<double>& row : band.rows) {
      draw_row(map, layout, row, y, paths);
      y += layout.row;
    }
    y += kBandGap;
  }
  for (int c = 0; c < kClasses; ++c)
    if (const std::string& path = paths[static_cast<std::size_t>(c)]; !path.empty())
      text += fmt::format("<path class=\"h{}\" shape-rendering=\"crispEdges\" d=\"{}\"/>\n", c, path);
  return text + labels + "\n";
}

std::string axis_svg(const HeatMap& map, const Layout& layout) {
  const std::vector<double> ticks = nice_ticks(layout.first, layout.last, kXTicks);
  const double y = kTop + layout.height + 4, between = std::max(1.0, ticks[1] - ticks[0]);
  std::string marks = fmt::format("M{:.1f} {:.1f}h{:.1f}", layout.left, y, layout.width), numbers;
  for (const double tick : ticks) {
    if (tick < layout.first || tick > layout.last || tick != std::floor(tick)) continue;
    marks += fmt::format("M{:.1f} {:.1f}v4", layout.at_x(tick), y);
    numbers += fmt::format("<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>",
                           layout.at_x(tick), y + 18, mark_text(tick, between, layout.last));
  }
  return fmt::format(
      "<path class=\"a\" d=\"{}\"/>{}<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" "
      "text-anchor=\"middle\">{}</text>\n",
      marks, numbers, layout.left + layout.width / 2, y + 36, svg_escaped(map.x_label));
}

std::string legend_svg() {
  constexpr double kCell = 12, kCellsAt = 106;
  std::string text;
  for (int c = 0; c < kClasses; ++c)
    text += fmt::format("<rect class=\"h{}\" x=\"{:.0f}\" y=\"44\" width=\"{:.0f}\" height=\"12\"/>", c,
                        kLeft + kCellsAt + kCell * c, kCell);
  const double end = kLeft + kCellsAt + kCell * kClasses;
  return text + fmt::format(
                    "<text x=\"{:.0f}\" y=\"54\" text-anchor=\"end\">a quarter or less</text>"
                    "<text x=\"{:.0f}\" y=\"40\" text-anchor=\"middle\" class=\"m\">even</text>"
                    "<text x=\"{:.0f}\" y=\"54\">four times the mean or more</text>\n",
                    kLeft + kCellsAt - 8, kLeft + kCellsAt + kCell * kClasses / 2, end + 8);
}

std::string description(const HeatMap& map) {
  std::string text;
  for (const HeatBand& band : map.bands) {
    double most = 0;
    for (const auto& row : band.rows)
      for (const double value : row) most = std::isfinite(value) ? std::max(most, value) : most;
    text += fmt::format("{}{}: at most {} times the mean", text.empty() ? "" : "; ", band.label, figure_text(most));
  }
  return text.empty() ? "nothing to show yet" : text;
}

}  // namespace

std::string heat_map_svg(const HeatMap& map, double width) {
  const Layout layout = layout_of(map, width);
  const double height = kTop + layout.height + kBottom;
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"hm\" viewBox=\"0 0 {0:g} {1:g}\" "
             "width=\"{0:g}\" height=\"{1:g}\">\n",
             width, std::ceil(height)) +
         style_svg() +
         fmt::format(
             "<g role=\"img\"><title>{0}</title><desc>{1}</desc>\n<text class=\"t\" x=\"{2:.0f}\" "
             "y=\"20\">{0}</text>\n",
             svg_escaped(map.title), svg_escaped(description(map)), kLeft) +
         legend_svg() + bands_svg(map, layout) + axis_svg(map, layout) + "</g></svg>\n";
}

}  // namespace troupe
