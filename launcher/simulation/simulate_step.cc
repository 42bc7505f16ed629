// `troupe simulate CONFIG --step`: one step of a configuration on a cluster that isn't there.
#include <cstdio>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/simulation/step_world.h"
#include "launcher/tools.h"

namespace troupe {

int simulate_step(const SimulateOptions& options, const SimulateStepOptions& how) {
  start_log("simulate", "", LogLevel::error);
  if (options.config_path.empty()) throw Error("--step needs a configuration: troupe simulate CONFIG --step");
  std::vector<std::string> sets = options.sets;
  if (!how.cluster.empty()) sets.push_back("device.hardware=" + how.cluster);
  StepOptions step;
  step.config = load_config(options.config_path, sets);
  const HardwareConfig& h = step.config.hardware;
  if (h.between_gbytes_per_second <= 0 || (h.devices_per_machine > 1 && h.inside_gbytes_per_second <= 0))
    throw Error(
        "device.hardware {}: tells no inside_gbytes_per_second or no between_gbytes_per_second; --step needs them",
        h.name);
  step.replicas_simulated = how.replicas;
  step.load = expert_load_from(how.load, step.config.model.n_routed_experts);
  step.seed = options.seed;
  step.lose = how.lose;
  step.start_seconds = how.start_seconds;
  std::fputs(to_text(simulate_step(step)).c_str(), stdout);
  return 0;
}

}  // namespace troupe
