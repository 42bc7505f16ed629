// `troupe train`: one run, in this process or in several local ones.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "actors/config.h"
#include "launcher/launch/launch.h"
#include "launcher/run_folder.h"
#include "messages/message.h"

namespace troupe {

struct TrainOptions {
  std::string config_path, out;
  bool resume = false;
  std::vector<std::string> sets;
  bool quiet = false;
  bool tells_places = false;                      // where each actor runs, before it begins
  std::shared_ptr<const LaunchRequest> launch{};  // null: all runs in this machine's processes
};

// Returns the process's exit code; throws Error.
int train(const TrainOptions& options);

// How a run is begun: afresh or again; by whose weights, if train.start_from doesn't say it.
struct RunStart {
  bool resume = false, quiet = false;
  std::string weights;  // a folder; empty: train.start_from
  bool tells_places = false;
  std::shared_ptr<const LaunchRequest> launch{};
};
constexpr int kInterrupted = 130;  // the exit code of what was interrupted; a run is saved then
// One run in its folder. REQUIRES: the configuration is checked.
int train_run(const Config& config, const std::string& out, const RunStart& start);

// After a line about held-out answers: the alarm of reward hacking, to metrics.jsonl and to the person, once.
void look_at_alarm(const Config& config, RunFolder& folder, const nlohmann::json& line);
// A run that goes on must mean the same numbers; throws Error with what changed and matters.
void check_resumable(const Config& before, const Config& now, const std::string& folder);

// Where a run begins: fresh, from start_from's weights, or from a run's last checkpoint (checked against its manifest).
Recover starting_point(const Config& config, const std::string& run_folder, bool resume);

}  // namespace troupe
