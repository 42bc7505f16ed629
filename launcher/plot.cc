// `troupe plot RUN`: all that a run has to show, in one SVG.
#include <fmt/format.h>

#include <cmath>
#include <fstream>

#include "kernels/base/error.h"
#include "launcher/bill_svg.h"
#include "launcher/load_map.h"
#include "launcher/progress.h"
#include "launcher/run_charts.h"
#include "launcher/run_folder.h"
#include "launcher/svg_page.h"
#include "launcher/svg_text.h"
#include "launcher/timeline.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

constexpr double kPlotLeft = 58, kPlotWidth = 1040;  // of the other parts: where their plots begin

double last_of(const std::map<double, MetricLine>& lines, const std::string& key) {
  if (lines.empty()) return std::nan("");
  const auto found = lines.rbegin()->second.find(key);
  return found == lines.rbegin()->second.end() ? std::nan("") : found->second;
}

std::string head_line(const RunMetrics& metrics) {
  std::string text;
  const auto add = [&](const std::string& more) { text += (text.empty() ? "" : ", ") + more; };
  if (!metrics.steps.empty()) add(fmt::format("{:g} steps", metrics.steps.rbegin()->first + 1));
  if (const double tokens = last_of(metrics.steps, "tokens"); tokens > 0) add(counted(tokens) + " tokens");
  if (const double seconds = last_of(metrics.steps, "seconds"); seconds > 0)
    add(seconds < 60 ? figure_text(seconds) + " s" : human_time(seconds));
  if (const double loss = last_of(metrics.steps, "loss"); std::isfinite(loss)) add(fmt::format("loss {:.4f}", loss));
  if (const double loss = last_of(metrics.evaluations, "loss"); std::isfinite(loss))
    add(fmt::format("held out {:.4f}", loss));
  if (const double cost = last_of(metrics.steps, "cost_dollars"); cost > 0) add("$" + figure_text(cost));
  if (!metrics.finished) add("not finished");
  return text;
}

// "": its journals are gone, or hold no whole step.
std::string step_picture(const std::string& run) {
  try {
    return timeline_svg({recorded_step(run, -1)}, kPlotWidth + kTimelineLeft - kPlotLeft);
  } catch (const Error&) {
    return "";
  }
}

}  // namespace

int plot(const std::string& path, const std::string& out) {
  // Of a run of phases: the one that is trained now, or the last that was trained where the last only asked.
  std::string run = current_run(path);
  RunMetrics metrics = read_run_metrics(run + "/metrics.jsonl");
  std::vector<Chart> charts = run_charts(metrics);
  if (charts.empty()) {
    run = path + "/latest";
    metrics = read_run_metrics(run + "/metrics.jsonl");
    charts = run_charts(metrics);
  }
  if (charts.empty()) throw Error("{}: has no metrics.jsonl with steps or evaluations; name a run's folder", path);
  std::vector<PagePart> parts{{svg_charts(charts)}};
  if (const HeatMap load = load_map(metrics); !load.bands.empty()) parts.push_back({heat_map_svg(load)});
  if (metrics.bill.is_object()) parts.push_back({bill_svg({{"", metrics.bill}})});
  if (const std::string step = step_picture(run); !step.empty()) parts.push_back({step, kPlotLeft - kTimelineLeft});
  std::ofstream file(out, std::ios::trunc);  // it may be /dev/stdout
  file << svg_page(path, {head_line(metrics)}, parts);
  file.flush();
  if (!file) throw Error("{}: can't be written; choose another --out", out);
  return 0;
}

}  // namespace troupe
