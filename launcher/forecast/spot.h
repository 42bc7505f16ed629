// What it costs that devices may be taken away: the run stops at every loss, comes back after recovery_seconds, and does
// again what it had done since its last checkpoint.
// Formulas: J. W. Young, A first order approximation to the optimum checkpoint interval, 1974; J. T. Daly, A higher order
// estimate of the optimum checkpoint interval for restart dumps, 2006.
#pragma once

#include <vector>

namespace troupe {

struct Losses {
  double mean_seconds = 0;        // between two losses anywhere in the run; 0: there are none
  double checkpoint_seconds = 0;  // that training stands still for each
  double recovery_seconds = 0;    // from a loss until training goes on
};

double between_losses(double preemptions_per_hour, int devices);
// Young: sqrt(2 d M). Daly: sqrt(2 d M)(1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d, and M where d >= 2M. Seconds of work.
double young_interval(const Losses& losses);
double daly_interval(const Losses& losses);
// Daly: wall time of a second of work with a checkpoint after every `interval` seconds,
// M e^(R/M) (e^((t + d)/M) - 1) / t. Infinite where no interval is ever finished.
double wall_per_work(const Losses& losses, double interval);
// Share of the wall time that is lost: to checkpoints, recovery and work done again.
double lost_share(const Losses& losses, double interval);

}  // namespace troupe
