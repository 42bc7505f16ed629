#include "launcher/forecast/spot.h"

#include <cmath>

namespace troupe {

double between_losses(double preemptions_per_hour, int devices) {
  const double an_hour = preemptions_per_hour * devices;
  return an_hour > 0 ? 3600 / an_hour : 0;
}

double young_interval(const Losses& losses) { return std::sqrt(2 * losses.checkpoint_seconds * losses.mean_seconds); }

double daly_interval(const Losses& losses) {
  const double d = losses.checkpoint_seconds, m = losses.mean_seconds;
  if (d >= 2 * m) return m;
  const double ratio = d / (2 * m);
  return young_interval(losses) * (1 + std::sqrt(ratio) / 3 + ratio / 9) - d;
}

double wall_per_work(const Losses& losses, double interval) {
  const double d = losses.checkpoint_seconds, m = losses.mean_seconds;
  if (m <= 0) return 1 + d / interval;
  return m * std::exp(losses.recovery_seconds / m) * std::expm1((interval + d) / m) / interval;
}

double lost_share(const Losses& losses, double interval) { return 1 - 1 / wall_per_work(losses, interval); }

}  // namespace troupe
