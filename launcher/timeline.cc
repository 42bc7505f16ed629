// `troupe timeline`: the SVG. Microbatches by colour; forward pale, backward full, weight gradients striped, the
// optimizer grey; where the track shows, the thread waits. Rectangles that touch are one, and a colour is one path, so
// that the file stays small.
#include "launcher/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>

#include "kernels/base/error.h"
#include "launcher/colours.h"
#include "launcher/run_folder.h"
#include "launcher/svg_text.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

constexpr double kLeft = kTimelineLeft, kRight = 20, kTop = 46, kTitle = 30, kRow = 34, kRowGap = 8, kAxis = 34,
                 kLegend = 26;
constexpr double kLeastWidth = 0.25;  // of a rectangle; gaps below it are closed
constexpr double kLabelWidth = 13;    // of a rectangle that has room for its microbatch's number

// Phases as they are drawn.
enum class Look : std::uint8_t { forward, backward, weights, other };

Look look_of(const SegmentKey& key) {
  switch (key.segment_class) {
    case SegmentClass::forward:
      return Look::forward;
    case SegmentClass::backward:
      return Look::backward;
    case SegmentClass::weight_gradient:
      return Look::weights;
    default:
      return Look::other;
  }
}

struct Rectangle {
  double begin = 0, end = 0;  // x
  std::int32_t microbatch = 0;
  Look look = Look::other;
};

std::size_t colour_of(std::int32_t microbatch) { return static_cast<std::size_t>(microbatch) % kColours.size(); }

// A thread's segments in the panel, neighbours that look the same made one.
std::vector<Rectangle> rectangles(const RecordedThread& thread, const TimelinePanel& panel, double x_per_us) {
  std::vector<Rectangle> all;
  for (const RecordedSegment& s : thread.segments) {
    if (s.end_us <= panel.begin_us || s.begin_us >= panel.end_us) continue;
    const auto x = [&](std::int64_t us) {
      return kLeft + static_cast<double>(std::clamp(us, panel.begin_us, panel.end_us) - panel.begin_us) * x_per_us;
    };
    const Look look = look_of(s.key);
    const Rectangle next{x(s.begin_us), x(s.end_us), look == Look::other ? 0 : s.key.microbatch, look};
    const bool same = !all.empty() && all.back().look == next.look && all.back().microbatch == next.microbatch;
    if (same && next.begin - all.back().end < kLeastWidth)
      all.back().end = std::max(all.back().end, next.end);
    else
      all.push_back(next);
  }
  return all;
}

std::string fill_of(Look look, std::size_t colour) {
  switch (look) {
    case Look::forward:
      return fmt::format("fill=\"{}\" fill-opacity=\".42\"", kColours[colour]);
    case Look::backward:
      return fmt::format("fill=\"{}\"", kColours[colour]);
    case Look::weights:
      return fmt::format("fill=\"url(#w{})\"", colour);
    default:
      return "class=\"o\"";
  }
}

std::string track(const RecordedThread& thread, double y, double width) {
  return fmt::format(
      "<rect class=\"t\" x=\"{}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{}\" rx=\"2\"/>"
      "<text x=\"{}\" y=\"{:.0f}\" text-anchor=\"end\">node {}{}</text>\n",
      kLeft, y, width, kRow, kLeft - 10, y + kRow / 2 + 4, thread.node,
      thread.thread > 0 ? fmt::format(" / {}", thread.thread) : "");
}

std::string threads_svg(const TimelinePanel& panel, double top, double x_per_us) {
  std::map<std::pair<Look, std::size_t>, std::string> paths;
  std::string tracks, labels;
  double y = top;
  const double width = static_cast<double>(panel.end_us - panel.begin_us) * x_per_us;
  for (const RecordedThread& thread : panel.threads) {
    tracks += track(thread, y, width);
    for (const Rectangle& r : rectangles(thread, panel, x_per_us)) {
      const double w = std::max(kLeastWidth, r.end - r.begin);
      paths[{r.look, colour_of(r.microbatch)}] +=
          fmt::format("M{:.1f} {:.0f}h{:.2f}v{}h-{:.2f}z", r.begin, y, w, kRow, w);
      if (r.look != Look::other && w > kLabelWidth)
        labels += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.0f}\">{}</text>",
                              r.look == Look::backward ? "n b" : "n", r.begin + w / 2, y + kRow / 2 + 4, r.microbatch);
    }
    y += kRow + kRowGap;
  }
  std::string text = tracks;
  for (const auto& [key, path] : paths)
    text += fmt::format("<path {} d=\"{}\"/>\n", fill_of(key.first, key.second), path);
  return text + labels + "\n";
}

// Marks every 1, 2 or 5 x 10^n ms, about ten over the whole width.
double mark_ms(double ms) {
  const double rough = ms / 10, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10 * power;
}

std::string axis_svg(double y, double ms, double x_per_ms) {
  std::string text = fmt::format("<path class=\"a\" d=\"M{} {:.0f}H{:.1f}", kLeft, y, kLeft + ms * x_per_ms);
  std::string numbers;
  const double every = mark_ms(ms);
  for (int i = 0; i * every <= ms; ++i) {
    const double x = kLeft + i * every * x_per_ms;
    text += fmt::format("M{:.1f} {:.0f}v5", x, y);
    numbers += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{:g}{}</text>", x, y + 19, i * every,
                           i == 0 ? " ms" : "");
  }
  return text + "\"/>\n" + numbers + "\n";
}

std::string legend_svg(std::int32_t microbatches) {
  std::string text = fmt::format("<text x=\"{}\" y=\"19\">microbatch</text>", kLeft);
  double x = kLeft + 76;
  for (std::int32_t m = 0; m < std::min<std::int32_t>(microbatches, kColours.size()); ++m, x += 26)
    text += fmt::format(
        "<rect x=\"{0}\" y=\"6\" width=\"22\" height=\"18\" rx=\"2\" fill=\"{1}\"/><text class=\"n b\" x=\"{2}\" "
        "y=\"19\">{3}</text>",
        x, kColours[static_cast<std::size_t>(m)], x + 11, m);
  x += 24;
  const std::array<std::pair<const char*, std::string>, 5> looks = {{{"forward", fill_of(Look::forward, 0)},
                                                                     {"backward", fill_of(Look::backward, 0)},
                                                                     {"weight gradient", fill_of(Look::weights, 0)},
                                                                     {"step's end", fill_of(Look::other, 0)},
                                                                     {"waiting", "class=\"t\""}}};
  for (const auto& [name, fill] : looks) {
    text +=
        fmt::format("<rect {} x=\"{}\" y=\"6\" width=\"22\" height=\"18\" rx=\"2\"/><text x=\"{}\" y=\"19\">{}</text>",
                    fill, x, x + 28, name);
    x += 28 + 7.2 * static_cast<double>(std::char_traits<char>::length(name)) + 18;
  }
  return text + "\n";
}

std::string head_svg(double width, double height) {
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1:.0f}\" width=\"{0}\" height=\"{1:.0f}\" "
      "font-family=\"system-ui,sans-serif\" "
      "font-size=\"12\">\n<style>text{{fill:#333}}.h{{font-size:14px;font-weight:600}}"
      ".t{{fill:#e9ecef}}.o{{fill:#868e96}}.a{{stroke:#868e96;fill:none}}.n{{text-anchor:middle;fill:#222;font-size:"
      "11px}}"
      ".b{{fill:#fff}}@media(prefers-color-scheme:dark){{text{{fill:#d0d7de}}.t{{fill:#2a3038}}.n{{fill:#fff}}}}</"
      "style>\n<defs>",
      width, height);
  for (std::size_t c = 0; c < kColours.size(); ++c)
    text += fmt::format(
        "<pattern id=\"w{0}\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
        "<rect width=\"5\" height=\"5\" fill=\"{1}\" fill-opacity=\".25\"/><rect width=\"2\" height=\"5\" "
        "fill=\"{1}\"/>"
        "</pattern>",
        c, kColours[c]);
  return text + "</defs>\n";
}

std::int32_t microbatches_of(const std::vector<TimelinePanel>& panels) {
  std::int32_t most = 0;
  for (const TimelinePanel& panel : panels)
    for (const RecordedThread& thread : panel.threads)
      for (const RecordedSegment& s : thread.segments) most = std::max(most, s.key.microbatch + 1);
  return most;
}

}  // namespace

std::string timeline_svg(const std::vector<TimelinePanel>& panels, double width) {
  std::int64_t longest_us = 1;
  for (const TimelinePanel& panel : panels) longest_us = std::max(longest_us, panel.end_us - panel.begin_us);
  const double x_per_us = (width - kLeft - kRight) / static_cast<double>(longest_us);
  std::string body = legend_svg(microbatches_of(panels));
  double y = kTop;
  for (const TimelinePanel& panel : panels) {
    body += fmt::format("<text class=\"h\" x=\"{}\" y=\"{:.0f}\">{}</text>\n", kLeft, y + 16, svg_escaped(panel.title));
    y += kTitle;
    body += threads_svg(panel, y, x_per_us);
    y += static_cast<double>(panel.threads.size()) * (kRow + kRowGap);
    body += axis_svg(y, static_cast<double>(panel.end_us - panel.begin_us) / 1000, x_per_us * 1000);
    y += kAxis + kLegend / 2;
  }
  return head_svg(width, y) + body + "</svg>\n";
}

namespace {

std::string title_of(const Config& config, const TimelinePanel& panel) {
  std::string text = fmt::format("{}: a step of {:.0f} ms, compute threads busy {:.0f} % of it", config.name,
                                 static_cast<double>(panel.end_us - panel.begin_us) / 1000, 100 * busy_share(panel));
  if (config.link.delay_ms > 0) text += fmt::format(", each message {:g} ms on its way", config.link.delay_ms);
  if (config.link.gbits_per_second > 0) text += fmt::format(", link of {:g} Gbit/s", config.link.gbits_per_second);
  return text;
}

}  // namespace

TimelinePanel recorded_step(const std::string& run_folder, std::int64_t step) {
  const Config config = load_run_config(run_folder);
  TimelinePanel panel{"", read_recordings(run_folder), 0, 0};
  choose_step(panel, step);
  panel.title = title_of(config, panel);
  return panel;
}

int timeline(const TimelineOptions& options) {
  std::vector<TimelinePanel> panels;
  for (const std::string& path : options.runs) panels.push_back(recorded_step(current_run(path), options.step));
  std::ofstream file(options.out, std::ios::trunc);
  file << timeline_svg(panels);
  file.flush();
  if (!file) throw Error("{}: can't be written; is its folder there?", options.out);
  fmt::print("{}\n", options.out);
  return 0;
}

}  // namespace troupe
