// Each bin has a look of its own, always the same: eight colours, five of them striped too, and grey.
#include "launcher/bill_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "actors/rules/bill.h"
#include "launcher/colours.h"
#include "launcher/svg_text.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr double kLeft = 58, kRight = 18, kBar = 34, kName = 20, kBarGap = 14, kLegendRow = 22, kTop = 34;
constexpr double kLabelWidth = 46, kGap = 1;  // of a piece that has room for its share; between pieces

struct Look {
  const char* colour;
  bool striped = false;
  bool pale = false;  // what is written on it is dark
};
constexpr std::array<Look, kBins> kLooks = {{{kColours[0]},
                                             {kColours[4], false, true},
                                             {kColours[5], false, true},
                                             {kColours[5], true},
                                             {kColours[1], false, true},
                                             {kColours[3]},
                                             {kColours[6]},
                                             {kColours[2]},
                                             {kColours[7]},
                                             {"#6e7781"},
                                             {kColours[0], true},
                                             {kColours[4], true},
                                             {kColours[1], true}}};

std::string fill_of(std::size_t bin) {
  return kLooks[bin].striped ? fmt::format("url(#bill{})", bin) : kLooks[bin].colour;
}

double seconds_of(const json& line, std::size_t bin) {
  const auto bins = line.find("thread_seconds");
  return bins == line.end() ? 0 : bins->value(to_string(static_cast<Bin>(bin)), 0.0);
}
double total_of(const json& line) {
  double sum = 0;
  for (std::size_t bin = 0; bin < kBins; ++bin) sum += seconds_of(line, bin);
  return sum;
}
double share_of(const json& line, std::size_t bin) { return seconds_of(line, bin) / std::max(1e-12, total_of(line)); }

std::string style_svg() {
  std::string text =
      "<style>.bl{color:#24292f;font:12px system-ui,sans-serif}.bl text{fill:currentColor}"
      ".bl .t{font-size:14px;font-weight:600}.bl .m{opacity:.72}.bl .w{fill:#fff;font-weight:600;text-anchor:middle}"
      ".bl .k{fill:#111}"
      "@media(prefers-color-scheme:dark){.bl{color:#d0d7de}}</style>\n<defs>";
  for (std::size_t bin = 0; bin < kBins; ++bin)
    if (kLooks[bin].striped)
      text += fmt::format(
          "<pattern id=\"bill{0}\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" "
          "patternTransform=\"rotate(45)\"><rect width=\"7\" height=\"7\" fill=\"{1}\"/><rect width=\"2.5\" "
          "height=\"7\" fill=\"#fff\" fill-opacity=\".55\"/></pattern>",
          bin, kLooks[bin].colour);
  return text + "</defs>\n";
}

std::string total_text(const json& line) {
  const double total = total_of(line), cost = line.value("cost_dollars", 0.0);
  std::string text = fmt::format("{} thread-seconds", figure_text(total));
  if (cost > 0) text += fmt::format(", ${}", figure_text(cost));
  return text;
}

std::string bar_svg(const BillBar& bar, double y, double width) {
  std::string text = fmt::format(
      "<text x=\"{:.0f}\" y=\"{:.1f}\"><tspan font-weight=\"600\">{}</tspan><tspan class=\"m\" "
      "dx=\"{}\">{}</tspan></text>\n",
      kLeft, y + 13, svg_escaped(bar.name), bar.name.empty() ? 0 : 8, total_text(bar.line));
  double x = kLeft;
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    const double share = share_of(bar.line, bin), wide = share * width;
    if (share <= 0) continue;
    text += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\"><title>{}: {:.1f} %</title></rect>",
        x, y + kName, std::max(0.3, wide - kGap), kBar, fill_of(bin), to_string(static_cast<Bin>(bin)), 100 * share);
    if (wide > kLabelWidth && !kLooks[bin].striped)
      text += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{:.0f} %</text>",
                          kLooks[bin].pale ? "w k" : "w", x + wide / 2, y + kName + kBar / 2 + 4, 100 * share);
    x += wide;
  }
  return text + "\n";
}

// Name, meaning, and the share in each bar.
std::string legend_entry(const std::vector<BillBar>& bars, std::size_t bin, double x, double y) {
  std::string shares;
  for (const BillBar& bar : bars)
    shares += fmt::format("{}{:.1f}", shares.empty() ? "" : " / ", 100 * share_of(bar.line, bin));
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"16\" height=\"14\" rx=\"2\" fill=\"{}\"/><text x=\"{:.1f}\" "
      "y=\"{:.1f}\"><tspan font-weight=\"600\">{}</tspan><tspan dx=\"6\">{} %</tspan><tspan class=\"m\" "
      "dx=\"8\">{}</tspan></text>\n",
      x, y, fill_of(bin), x + 23, y + 11, to_string(static_cast<Bin>(bin)), shares, meaning(static_cast<Bin>(bin)));
}

std::vector<std::size_t> bins_of(const std::vector<BillBar>& bars) {
  std::vector<std::size_t> bins;
  for (std::size_t bin = 0; bin < kBins; ++bin)
    if (std::any_of(bars.begin(), bars.end(), [&](const BillBar& bar) { return seconds_of(bar.line, bin) > 0; }))
      bins.push_back(bin);
  return bins;
}

}  // namespace

std::string bill_svg(const std::vector<BillBar>& bars, double width) {
  const std::vector<std::size_t> bins = bins_of(bars);
  const double wide = width - kLeft - kRight;
  std::string body;
  double y = kTop;
  for (const BillBar& bar : bars) {
    body += bar_svg(bar, y, wide);
    y += kName + kBar + kBarGap;
  }
  const std::size_t rows = (bins.size() + 1) / 2;
  for (std::size_t i = 0; i < bins.size(); ++i)
    body += legend_entry(bars, bins[i], kLeft + (i < rows ? 0 : wide / 2),
                         y + kLegendRow * static_cast<double>(i < rows ? i : i - rows));
  const double height = y + kLegendRow * static_cast<double>(rows) + 8;
  const char* title = "where the time of all compute threads went";
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"bl\" viewBox=\"0 0 {0:g} {1:g}\" "
             "width=\"{0:g}\" height=\"{1:g}\">\n",
             width, height) +
         style_svg() +
         fmt::format("<g role=\"img\"><title>{0}</title>\n<text class=\"t\" x=\"{1:.0f}\" y=\"20\">{0}</text>\n", title,
                     kLeft) +
         body + "</g></svg>\n";
}

}  // namespace troupe
