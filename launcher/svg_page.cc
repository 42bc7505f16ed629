#include "launcher/svg_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/base/check.h"
#include "launcher/svg_text.h"

namespace troupe {

namespace {

constexpr double kMargin = 24, kTitle = 34, kLine = 20, kBetween = 26, kLeft = 58;
const std::string kOpen = "<svg ";

double number_of(const std::string& svg, const std::string& attribute) {
  const std::string sought = " " + attribute + "=\"";
  const std::size_t at = svg.substr(0, svg.find('>')).find(sought);
  CHECK(svg.starts_with(kOpen) && at != std::string::npos, "a picture without {}", attribute);
  return std::strtod(svg.c_str() + at + sought.size(), nullptr);
}

}  // namespace

std::string svg_page(const std::string& title, const std::vector<std::string>& lines,
                     const std::vector<PagePart>& parts) {
  std::string body = fmt::format("<text class=\"ph\" x=\"{:g}\" y=\"{:g}\">{}</text>\n", kMargin + kLeft, kMargin + 18,
                                 svg_escaped(title));
  double y = kMargin + kTitle, width = 0;
  for (const std::string& line : lines) {
    body +=
        fmt::format("<text class=\"pl\" x=\"{:g}\" y=\"{:g}\">{}</text>\n", kMargin + kLeft, y + 8, svg_escaped(line));
    y += kLine;
  }
  for (const auto& [svg, left] : parts) {
    y += kBetween;
    body += fmt::format("<svg x=\"{:g}\" y=\"{:g}\" ", kMargin + left, y) + svg.substr(kOpen.size());
    y += number_of(svg, "height");
    width = std::max(width, left + number_of(svg, "width"));
  }
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" height=\"{1:g}\">\n"
             "<style>.pg{{fill:#fff}}.ph,.pl{{fill:#24292f;font:600 20px system-ui,sans-serif}}.pl{{font:13px "
             "system-ui,sans-serif;opacity:.8}}@media(prefers-color-scheme:dark){{.pg{{fill:#0d1117}}.ph,.pl{{"
             "fill:#d0d7de}}}}</style>\n<rect class=\"pg\" width=\"100%\" height=\"100%\"/>\n",
             width + 2 * kMargin, y + kMargin) +
         body + "</svg>\n";
}

}  // namespace troupe
