#include "actors/rules/learning_rate.h"

#include <algorithm>
#include <cmath>

namespace troupe {

double learning_rate(const TrainConfig& train, std::int64_t step) {
  const double s = static_cast<double>(step), steps = static_cast<double>(train.steps), r = train.minimum_ratio;
  double factor = 1;
  if (train.schedule == "cosine") {
    factor = r + (1 - r) * 0.5 * (1 + std::cos(M_PI * std::min(1.0, s / steps)));
  } else if (train.schedule == "wsd") {
    const double begin = steps * (1 - train.decay_fraction);
    if (s > begin) factor = 1 - (1 - r) * (s - begin) / std::max(1.0, steps - begin);
  }
  if (train.warmup_steps > 0) factor = std::min(factor, (s + 1) / train.warmup_steps);
  return train.learning_rate * factor;
}

}  // namespace troupe
