// What a run would take: time, money, and how both change with the machines; what a budget reaches. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launcher/forecast/layouts.h"

namespace troupe {

struct Forecast {
  std::string hardware;
  int devices = 0;
  RankedLayout laid;
  Fit fit;
  double tokens_per_step = 0, steps = 0;  // steps of the configuration
  double mfu = 0;                         // causal operations over the peak
  std::string peak;                       // whose: bfloat16's for fp8 too, as published
  double dollars_per_hour = 0;            // of all devices
  double tokens_per_second() const { return tokens_per_step / laid.seconds; }
  double hours(double steps_done) const { return steps_done * laid.seconds / 3600; }
  double dollars(double steps_done) const { return hours(steps_done) * dollars_per_hour; }
};

// Of config.layout as it stands.
Forecast forecast(const Config& config, const Cluster& cluster, MemoryBook& book, const StepSeconds& seconds = {});
// Of the quickest layout that fits; where none does, of the quickest, whose fit says so.
// REQUIRES: why_no_layout is empty.
Forecast best_forecast(const Config& config, const Cluster& cluster, MemoryBook& book, const StepSeconds& seconds = {});

// The steps that a limit leaves, at most the configuration's.
double steps_for_dollars(const Forecast& forecast, double dollars);
double steps_for_days(const Forecast& forecast, double days);
// The fewest devices, in powers of two, on which all steps end within so many days; empty: not with devices_max.
std::optional<Forecast> devices_for_days(const Config& config, const HardwareConfig& hardware, double days,
                                         int devices_max, MemoryBook& book, const StepSeconds& seconds = {});

struct Change {
  std::string name;
  std::optional<Forecast> forecast;  // best_forecast there
  std::string why;                   // there is none
};
// The same run with links twice and half as quick, and on other devices.
std::vector<Change> changes(const Config& config, const Cluster& cluster, const std::vector<HardwareConfig>& others,
                            MemoryBook& book, const StepSeconds& seconds = {});

}  // namespace troupe
