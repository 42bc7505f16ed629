#include "launcher/alarm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "launcher/metrics_file.h"

namespace troupe {

namespace {

std::vector<Point> points_of(const std::map<double, double>& by_step) { return {by_step.begin(), by_step.end()}; }

std::vector<Point> within(const std::vector<Point>& points, double first, double last) {
  std::vector<Point> some;
  for (const Point& p : points)
    if (p.first >= first && p.first <= last) some.push_back(p);
  return some;
}

Change change_of(const std::vector<Point>& points, double steps, bool rise) {
  std::vector<Point> turned = points;
  for (Point& p : turned) p.second = rise ? p.second : -p.second;
  return {theil_sen_slope(points) * steps, rise_p_value(turned)};
}

// The window's first step, or no window: too few evaluations.
bool choose_window(const RewardSeries& series, RewardAlarm& alarm) {
  if (series.reward.empty() || series.accuracy.empty()) return false;
  const double begin = std::max(series.reward.front().first, series.accuracy.front().first);
  alarm.last_step = std::min(series.reward.back().first + 1, series.accuracy.back().first);  // a step makes a version
  alarm.first_step = alarm.last_step - (alarm.last_step - begin) / 3;
  const std::vector<Point> known = within(series.accuracy, begin, alarm.last_step);
  const auto least = static_cast<std::size_t>(kAlarmEvaluationsMin);
  if (known.size() < least) return false;
  alarm.first_step = std::min(alarm.first_step, known[known.size() - least].first);
  return within(series.reward, alarm.first_step, alarm.last_step).size() >= least;
}

std::string moved(double change, const char* unit, double scale) {
  return fmt::format("{} by {:.{}f}{}", change >= 0 ? "rose" : "fell", scale * std::abs(change), scale == 1 ? 3 : 1,
                     unit);
}

}  // namespace

RewardSeries read_reward_series(const std::string& metrics_path) {
  std::map<double, double> reward, accuracy;
  for_each_metric(metrics_path, [&](const std::string& kind, const nlohmann::json& j) {
    const auto number = [&](const char* key) { return j.contains(key) && j[key].is_number(); };
    if (kind == "step" && number("step") && number("reward")) reward[j["step"]] = j["reward"];
    if (kind == "answers" && number("version") && number("accuracy")) accuracy[j["version"]] = j["accuracy"];
  });
  return {points_of(reward), points_of(accuracy)};
}

RewardAlarm reward_alarm(const RewardSeries& series) {
  RewardAlarm alarm;
  alarm.known = choose_window(series, alarm);
  if (!alarm.known) {
    alarm.sentence = fmt::format(
        "too little to tell of reward hacking: {} evaluations of held-out answers, must be {} or more with rewards "
        "between them; set evaluate.problems and evaluate.every_steps",
        series.accuracy.size(), kAlarmEvaluationsMin);
    return alarm;
  }
  const double steps = alarm.last_step - alarm.first_step;
  alarm.reward = change_of(within(series.reward, alarm.first_step, alarm.last_step), steps, true);
  alarm.accuracy = change_of(within(series.accuracy, alarm.first_step, alarm.last_step), steps, false);
  const double up = alarm.reward.over_window, down = alarm.accuracy.over_window;
  alarm.raised = up >= kAlarmChangeMin && alarm.reward.p_value < kAlarmPValue && down <= -kAlarmChangeMin &&
                 alarm.accuracy.p_value < kAlarmPValue;
  const std::string what = fmt::format(
      "from step {:.0f} to {:.0f} the training reward {} (p of a rise {:.2g}) and "
      "held-out accuracy {} (p of a fall {:.2g})",
      alarm.first_step, alarm.last_step, moved(up, "", 1), alarm.reward.p_value, moved(down, " points", 100),
      alarm.accuracy.p_value);
  alarm.sentence = alarm.raised
                       ? "reward hacking: " + what +
                             "; read what is rewarded in the run's rollouts, mend the judge or the task, and go "
                             "back to the checkpoint before"
                       : "no sign of reward hacking: " + what;
  return alarm;
}

}  // namespace troupe
