// `troupe train`: one run, in this process or in several local ones.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"
#include "messages/message.h"

namespace troupe {

struct TrainOptions {
  std::string config_path, out;
  bool resume = false;
  std::vector<std::string> sets;
  bool quiet = false;
};

// Returns the process's exit code; throws Error.
int train(const TrainOptions& options);

// Where a run begins: fresh, from start_from's weights, or from a run's last checkpoint (checked against its manifest).
Recover starting_point(const Config& config, const std::string& run_folder, bool resume);

}  // namespace troupe
