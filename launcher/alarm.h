// The alarm of reward hacking: the training reward rises while held-out accuracy falls. A pure function of two series.
//
// Looked at is the last third of the steps that both series cover, or as much more as holds five evaluations. A series
// moves if its Theil-Sen slope over that window comes to at least 0.02 (of reward 1, or 2 points of accuracy) and the
// Mann-Kendall test against "no trend" has p < 0.05, one-sided. The alarm is raised if the reward moves up and the
// accuracy moves down. If both only jittered, each for itself, that would happen at most once in 400 looks.
#pragma once

#include <string>
#include <vector>

#include "actors/rules/statistics.h"

namespace troupe {

constexpr int kAlarmEvaluationsMin = 5;
constexpr double kAlarmChangeMin = 0.02, kAlarmPValue = 0.05;

struct RewardSeries {
  std::vector<Point> reward, accuracy;  // by step, rising: of training samples; of held-out problems
};
// From a run's metrics.jsonl; of a step told twice, the later. A file that isn't there holds nothing.
RewardSeries read_reward_series(const std::string& metrics_path);

struct Change {
  double over_window = 0;  // the slope times the window's steps
  double p_value = 1;      // in the direction that the alarm asks about
};

struct RewardAlarm {
  bool raised = false, known = false;  // known: there was enough to look at
  double first_step = 0, last_step = 0;
  Change reward, accuracy;
  std::string sentence;  // for a person, whatever came out
};
RewardAlarm reward_alarm(const RewardSeries& series);

}  // namespace troupe
