#include "launcher/run_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "launcher/metrics_file.h"
#include "launcher/run_folder.h"
#include "launcher/tools.h"

namespace troupe {

using nlohmann::json;

namespace {

using Lines = std::map<std::string, std::map<double, json>>;  // by kind, by step or version

Lines read_lines(const std::string& path) {
  Lines lines;
  for_each_metric(path, [&](const std::string& kind, const json& line) {
    const char* number = kind == "step" ? "step" : "version";
    if (kind != "step" && kind != "answers" && kind != "evaluation") return;
    if (!line.contains(number) || !line[number].is_number()) return;
    lines[kind].insert_or_assign(line[number].get<double>(), line);
  });
  return lines;
}

// A value that isn't a number (a loss that is not finite is null) breaks the line.
std::vector<ChartPoint> points_of(const Lines& lines, const std::string& kind, const char* key) {
  std::vector<ChartPoint> points;
  bool any = false;
  if (!lines.contains(kind)) return points;
  for (const auto& [at, j] : lines.at(kind)) {
    if (!j.contains(key)) continue;
    const bool number = j[key].is_number();
    any = any || number;
    points.push_back({at, number ? j[key].get<double>() : std::nan("")});
  }
  return any ? points : std::vector<ChartPoint>{};
}

// Steps jitter: each is drawn faintly under the mean of as many as make the line calm.
Chart chart_of_steps(const Lines& lines, const std::string& title, const char* key, bool from_zero) {
  Chart chart{.title = title, .x_label = "step", .unit = "", .from_zero = from_zero, .series = {}};
  const std::vector<ChartPoint> points = points_of(lines, "step", key);
  const int window = std::clamp(static_cast<int>(points.size() / 20), 1, 50);
  if (points.empty()) return chart;
  const bool calm = window == 1;
  chart.series.push_back({calm ? key : fmt::format("mean of {} steps", window), running_mean(points, window)});
  if (!calm) chart.series.push_back({"each step", points, true});
  return chart;
}

Chart answers_chart(const Lines& lines) {
  Chart chart{.title = "held-out problems answered right",
              .x_label = "step",
              .unit = " %",
              .scale = 100,
              .from_zero = true,
              .series = {}};
  if (!lines.contains("answers")) return chart;
  const std::string k = fmt::format("pass@{}", lines.at("answers").rbegin()->second.value("pass_k", 0));
  for (const auto& [key, label] :
       {std::pair<const char*, std::string>{"accuracy", "sampled"}, {"greedy", "greedy"}, {"pass", k}})
    if (auto points = points_of(lines, "answers", key); !points.empty()) chart.series.push_back({label, points});
  return chart;
}

}  // namespace

std::vector<Chart> run_charts(const std::string& metrics_path) {
  const Lines lines = read_lines(metrics_path);
  std::vector<Chart> charts{chart_of_steps(lines, "training reward", "reward", false), answers_chart(lines),
                            chart_of_steps(lines, "entropy, nats a token", "entropy", true),
                            chart_of_steps(lines, "length of an answer, tokens", "length_mean", true),
                            chart_of_steps(lines, "loss", "loss", false)};
  Chart held_out{.title = "held-out loss, nats a token", .x_label = "step", .unit = "", .series = {}};
  if (auto points = points_of(lines, "evaluation", "loss"); !points.empty())
    held_out.series.push_back({"held out", points});
  charts.push_back(held_out);
  std::erase_if(charts, [](const Chart& chart) { return chart.series.empty(); });
  return charts;
}

int plot(const std::string& run, const std::string& out) {
  // Of a run of phases: the one that is trained now, or the last that was trained where the last only asked.
  std::vector<Chart> charts = run_charts(current_run(run) + "/metrics.jsonl");
  if (charts.empty()) charts = run_charts(run + "/latest/metrics.jsonl");
  if (charts.empty()) throw Error("{}: has no metrics.jsonl with steps or evaluations; name a run's folder", run);
  std::ofstream file(out, std::ios::trunc);  // it may be /dev/stdout
  file << svg_charts(charts);
  file.flush();
  if (!file) throw Error("{}: can't be written; choose another --out", out);
  return 0;
}

}  // namespace troupe
