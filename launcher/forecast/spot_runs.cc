#include "launcher/forecast/spot_runs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr int kRuns = 1000, kRunsLeast = 50;
constexpr double kLossesMax = 4e6;      // of all runs
constexpr double kWallPerWorkMax = 20;  // a run that takes longer is none that anybody wants

// One run. From one loss to the next is memoryless, so that each draw begins where the last event was.
class Drawn {
 public:
  Drawn(const Losses& losses, std::uint64_t key, std::uint64_t run) : losses_(losses), key_(key), run_(run) {}
  double wall(double interval, double work) {
    double wall = 0;
    while (work > 0) {
      const double end = work + losses_.checkpoint_seconds * std::ceil(work / interval), loss = until_loss();
      if (loss >= end) return wall + end;
      ++count;
      wall += loss + recovery();
      work -= interval * std::floor(loss / (interval + losses_.checkpoint_seconds));
    }
    return wall;
  }
  std::uint64_t count = 0;  // losses so far

 private:
  double until_loss() { return -losses_.mean_seconds * std::log1p(-random_uniform(key_, run_, draws_++)); }
  // A loss meanwhile begins it again.
  double recovery() {
    double seconds = losses_.recovery_seconds;
    for (double loss = until_loss(); loss < losses_.recovery_seconds; loss = until_loss()) {
      seconds += loss;
      ++count;
    }
    return seconds;
  }
  const Losses& losses_;
  std::uint64_t key_, run_, draws_ = 0;
};

}  // namespace

SpotRuns draw_spot_runs(const Losses& losses, double interval, double work, std::uint64_t seed) {
  SpotRuns drawn;
  const double stretch = wall_per_work(losses, interval);
  if (losses.mean_seconds <= 0 || interval <= 0 || work <= 0 || !(stretch < kWallPerWorkMax)) return drawn;
  const double losses_a_run = 1 + work * stretch / losses.mean_seconds;
  drawn.runs = static_cast<int>(std::clamp(kLossesMax / losses_a_run, double{kRunsLeast}, double{kRuns}));
  const std::uint64_t key = random_key(seed, "losses of runs on spot devices");
  std::vector<double> walls;
  std::uint64_t count = 0;
  for (int run = 0; run < drawn.runs; ++run) {
    Drawn one(losses, key, static_cast<std::uint64_t>(run));
    walls.push_back(one.wall(interval, work));
    drawn.mean += walls.back() / drawn.runs;
    count += one.count;
  }
  std::sort(walls.begin(), walls.end());
  drawn.low = walls[static_cast<std::size_t>(0.05 * drawn.runs)];
  drawn.high = walls[static_cast<std::size_t>(0.95 * drawn.runs)];
  drawn.losses = static_cast<double>(count) / drawn.runs;
  return drawn;
}

}  // namespace troupe
