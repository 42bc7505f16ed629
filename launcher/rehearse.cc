// troupe rehearse CONFIG
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/simulation/rehearsal.h"
#include "launcher/tools.h"

namespace troupe {

int rehearse(const RehearseOptions& given) {
  RehearsalOptions options;
  options.config = load_config(given.config_path, given.sets);
  resolve_machine(options.config);
  start_log("rehearse", "", LogLevel::error);
  options.cores = usable_cores();
  options.nodes_a_machine = options.config.layout.nodes;
  options.links = {30, 4};
  options.steps = given.steps;
  options.scratch = fmt::format("{}/troupe-rehearsal-{}", std::filesystem::temp_directory_path().string(), getpid());
  const Rehearsal r = rehearse(options);
  std::filesystem::remove_all(options.scratch);
  fmt::print("step {:.2f} ms ({} steps of virtual time, {:.1f} s)\n", 1e3 * r.seconds, r.step_seconds.size(), r.took_s);
  for (double s : r.step_seconds) fmt::print(" {:.2f}", 1e3 * s);
  fmt::print("\n");
  for (std::size_t node = 0; node < r.nodes.size(); ++node)
    fmt::print("node {}: actors {:.1f} MiB\n", node, static_cast<double>(r.nodes[node].actors) / 1048576.0);
  return 0;
}

}  // namespace troupe
