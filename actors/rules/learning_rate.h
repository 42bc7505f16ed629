// The learning rate of a step: a pure function of the schedule.
//   warm-up: peak * (step + 1) / warmup, bounding the schedule from above
//   cosine:  peak * (r + (1 - r) * (1 + cos(pi * min(1, step / steps))) / 2),  r = minimum_ratio
//   wsd:     peak until the last decay_fraction of the steps, then linearly to r * peak
#pragma once

#include "actors/config.h"

namespace troupe {

double learning_rate(const TrainConfig& train, std::int64_t step);

}  // namespace troupe
