// The traps: a step may be smaller than its job, so SLURM_STEP_* go before SLURM_JOB_*; in a batch script there is no step
// yet. --no-kill keeps the job when a node dies. `B:` has the time's signal sent to the batch script alone, which is the
// launcher itself, because the script ends in exec.
#include "launcher/launch/slurm.h"

#include <fmt/format.h>

#include <cstdlib>

#include "kernels/base/error.h"
#include "launcher/program.h"

namespace troupe {

namespace {

std::string first_of(const Environment& env, const std::vector<const char*>& names) {
  for (const char* name : names)
    if (const std::string value = env(name); !value.empty()) return value;
  throw Error("inside of a Slurm job, but {} isn't set; start this in the job's batch script or in salloc", names[0]);
}

}  // namespace

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool in_allocation(const Environment& env) { return !env("SLURM_JOB_ID").empty(); }

std::vector<HostLine> allocated_hosts(const Environment& env) {
  const bool step = !env("SLURM_STEP_NODELIST").empty();
  const auto names = expand_node_list(first_of(env, {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}));
  const std::string tasks = env(step ? "SLURM_STEP_TASKS_PER_NODE" : "SLURM_TASKS_PER_NODE");
  std::vector<int> counts = tasks.empty() ? std::vector<int>(names.size(), 1) : expand_counts(tasks);
  if (counts.size() != names.size())
    throw Error("Slurm names {} nodes and tells the tasks of {} (\"{}\")", names.size(), counts.size(), tasks);
  std::vector<HostLine> hosts;
  for (std::size_t i = 0; i < names.size(); ++i) hosts.push_back({names[i], counts[i]});
  return hosts;
}

std::string batch_script(const SlurmConfig& slurm, const BatchScript& script) {
  std::string text = "#!/bin/bash\n";
  const auto add = [&](const std::string& option) { text += "#SBATCH " + option + "\n"; };
  add("--job-name=" + script.name);
  add(fmt::format("--nodes={}", script.nodes));
  add(fmt::format("--ntasks-per-node={}", script.tasks_a_node));
  add("--output=" + script.output);
  add("--open-mode=append");
  add("--requeue");
  add("--no-kill");
  add(fmt::format("--signal=B:USR1@{}", slurm.signal_seconds));
  for (const auto& [name, value] : {std::pair<const char*, const std::string&>{"partition", slurm.partition},
                                    {"account", slurm.account},
                                    {"time", slurm.time},
                                    {"gres", slurm.gres},
                                    {"constraint", slurm.constraint}})
    if (!value.empty()) add(fmt::format("--{}={}", name, value));
  for (const std::string& line : slurm.lines) text += line + "\n";
  text += "exec";
  for (const std::string& word : script.command) text += " " + shell_quoted(word);
  return text + "\n";
}

}  // namespace troupe
