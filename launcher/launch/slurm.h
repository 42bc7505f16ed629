// Slurm: what a launcher inside of an allocation reads, and the batch script that one outside of it writes. Pure but for
// the environment, which is given.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "actors/config.h"
#include "launcher/launch/hosts.h"

namespace troupe {

using Environment = std::function<std::string(const char* name)>;  // "" where it isn't set
std::string environment(const char* name);                         // of this process

bool in_allocation(const Environment& env);
// The allocation's nodes, with the tasks that each takes. Throws Error: a variable is missing or can't be read.
std::vector<HostLine> allocated_hosts(const Environment& env);

struct BatchScript {
  std::string name;      // of the job
  int nodes = 1;         // with spares
  int tasks_a_node = 1;  // node processes
  std::string output;    // the job's own log
  std::vector<std::string> command;
};
std::string batch_script(const SlurmConfig& slurm, const BatchScript& script);

}  // namespace troupe
