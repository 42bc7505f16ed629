// Runs on devices that may be taken away, drawn one after another: losses come by chance, and what a run takes is more or
// less than its mean. The law of it is Daly's (spot.h), so that the mean of many is his formula's. Pure: a function of the seed.
#pragma once

#include <cstdint>

#include "launcher/forecast/spot.h"

namespace troupe {

struct SpotRuns {
  int runs = 0;                        // that were drawn; 0: none, a run may never end
  double mean = 0, low = 0, high = 0;  // wall seconds; 90 % of the runs lie between
  double losses = 0;                   // of a run, in the mean
};

// work: seconds of the whole run without losses; interval: of work after which a loss takes nothing more.
SpotRuns draw_spot_runs(const Losses& losses, double interval, double work, std::uint64_t seed);

}  // namespace troupe
