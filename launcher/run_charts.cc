#include "launcher/run_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace troupe {

namespace {

using Lines = std::map<double, MetricLine>;

// Of the key `x`, or by the lines' own numbers. A value that isn't a number (a loss that is not finite is null) breaks
// the line.
std::vector<ChartPoint> points_of(const Lines& lines, const std::string& key, const std::string& x = "") {
  std::vector<ChartPoint> points;
  bool any = false;
  for (const auto& [at, line] : lines) {
    const auto value = line.find(key), place = line.find(x);
    if (value == line.end() || (!x.empty() && place == line.end())) continue;
    any = any || !std::isnan(value->second);
    points.push_back({x.empty() ? at : place->second, value->second});
  }
  return any ? points : std::vector<ChartPoint>{};
}

// As many as make the line calm.
int window_of(std::size_t points) { return std::clamp(static_cast<int>(points / 20), 1, 50); }

// Steps jitter: each is drawn faintly under the mean of several.
void add_steps(Chart& chart, const std::vector<ChartPoint>& points, const std::string& name, bool dashed = false) {
  if (points.empty()) return;
  const int window = window_of(points.size());
  const std::string label = !name.empty() ? name : window == 1 ? "each step" : fmt::format("mean of {} steps", window);
  chart.series.push_back({label, running_mean(points, window), false, dashed});
  if (window > 1) chart.series.push_back({"each step", points, true, false});
}

struct StepCurve {
  const char *title, *key;
  bool from_zero = false;
  const char* unit = "";
  double scale = 1;
};
constexpr StepCurve kReward{"training reward", "reward"}, kEntropy{"entropy, nats a token", "entropy", true},
    kLength{"length of an answer, tokens", "length_mean", true}, kLoss{"loss", "loss"},
    kLoad{"load of the busiest expert, over the mean", "worst_load", true},
    kSpeed{"tokens a second", "tokens_per_second", true},
    kUse{"use of the machine's peak (MFU)", "mfu", true, " %", 100};

Chart empty_chart(const StepCurve& curve, const char* x_label = "step") {
  return {.title = curve.title,
          .x_label = x_label,
          .unit = curve.unit,
          .scale = curve.scale,
          .from_zero = curve.from_zero,
          .series = {}};
}

Chart chart_of_steps(const RunMetrics& metrics, const StepCurve& curve) {
  Chart chart = empty_chart(curve);
  add_steps(chart, points_of(metrics.steps, curve.key), "");
  return chart;
}

Chart cost_chart() {
  return {.title = "cost, dollars", .x_label = "step", .unit = "", .from_zero = true, .series = {}};
}

// What nothing was paid for costs nothing: no line.
std::vector<ChartPoint> cost_points(const RunMetrics& metrics) {
  auto points = points_of(metrics.steps, "cost_dollars");
  const bool any = std::any_of(points.begin(), points.end(), [](const ChartPoint& p) { return p.y > 0; });
  return any ? points : std::vector<ChartPoint>{};
}

Chart answers_frame() {
  return {.title = "held-out problems answered right",
          .x_label = "step",
          .unit = " %",
          .scale = 100,
          .from_zero = true,
          .series = {}};
}

Chart answers_chart(const RunMetrics& metrics) {
  Chart chart = answers_frame();
  if (metrics.answers.empty()) return chart;
  const MetricLine& last = metrics.answers.rbegin()->second;
  const std::string k = fmt::format("pass@{:g}", last.contains("pass_k") ? last.at("pass_k") : 0);
  for (const auto& [key, label] :
       {std::pair<const char*, std::string>{"accuracy", "sampled"}, {"greedy", "greedy"}, {"pass", k}})
    if (auto points = points_of(metrics.answers, key); !points.empty()) chart.series.push_back({label, points});
  return chart;
}

Chart held_out_frame() { return {.title = "held-out loss, nats a token", .x_label = "step", .unit = "", .series = {}}; }

std::vector<Chart> with_something(std::vector<Chart> charts) {
  std::erase_if(charts, [](const Chart& chart) { return chart.series.empty(); });
  return charts;
}

}  // namespace

std::vector<Chart> run_charts(const RunMetrics& metrics) {
  std::vector<Chart> charts{chart_of_steps(metrics, kReward), answers_chart(metrics), chart_of_steps(metrics, kEntropy),
                            chart_of_steps(metrics, kLength), chart_of_steps(metrics, kLoss)};
  Chart held_out = held_out_frame(), cost = cost_chart();
  if (auto points = points_of(metrics.evaluations, "loss"); !points.empty())
    held_out.series.push_back({"held out", points});
  charts.push_back(held_out);
  charts.push_back(chart_of_steps(metrics, kLoad));
  charts.push_back(chart_of_steps(metrics, kSpeed));
  charts.push_back(chart_of_steps(metrics, kUse));
  if (auto points = cost_points(metrics); !points.empty()) cost.series.push_back({"so far", points});
  charts.push_back(cost);
  return with_something(std::move(charts));
}

std::vector<Chart> run_charts(const std::string& metrics_path) { return run_charts(read_run_metrics(metrics_path)); }

std::vector<Chart> compared_charts(const std::vector<std::pair<std::string, RunMetrics>>& runs) {
  Chart by_tokens = empty_chart(kLoss, "tokens trained"), held_out = held_out_frame(), answers = answers_frame(),
        cost = cost_chart();
  by_tokens.title = "loss by tokens";
  std::vector<std::pair<StepCurve, Chart>> by_step;
  for (const StepCurve& curve : {kReward, kLoss, kLoad, kSpeed, kUse}) by_step.emplace_back(curve, empty_chart(curve));
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const auto& [name, metrics] = runs[r];
    const bool dashed = r % 2 == 1;  // a run with the same curve as the one before would hide it
    for (auto& [curve, chart] : by_step) add_steps(chart, points_of(metrics.steps, curve.key), name, dashed);
    add_steps(by_tokens, points_of(metrics.steps, kLoss.key, "tokens"), name, dashed);
    for (auto& [chart, points] :
         {std::pair<Chart&, std::vector<ChartPoint>>{held_out, points_of(metrics.evaluations, "loss")},
          {answers, points_of(metrics.answers, "accuracy")},
          {cost, cost_points(metrics)}})
      if (!points.empty()) chart.series.push_back({name, points, false, dashed});
  }
  std::vector<Chart> charts{by_step[0].second, answers,           by_step[1].second, by_tokens, held_out,
                            by_step[2].second, by_step[3].second, by_step[4].second, cost};
  return with_something(std::move(charts));
}

}  // namespace troupe
