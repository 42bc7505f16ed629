// `troupe launch`: a run on this machine, on hosts that ssh reaches, or under Slurm. It decides where node processes run,
// and is `troupe train` from there on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/config.h"
#include "launcher/launch/hosts.h"
#include "launcher/launch/launch.h"
#include "launcher/train.h"

namespace troupe {

struct LaunchRun {
  TrainOptions train;
  std::string on = "local";
  int nodes = 0;   // processes; 0: as many as the hosts take, but for the spares
  int spares = 0;  // hosts that wait for another's loss
  std::string ssh = "ssh";
  std::string program;    // on the hosts; empty: where it is here
  std::string interface;  // layout.interface
  bool dry_run = false;   // Slurm, outside of an allocation: show the script
};
// Returns the process's exit code; throws Error.
int launch(const LaunchRun& options);

// What `--on hosts:FILE` and `--on slurm`, inside of an allocation, name. Throws Error: there is no such file, ...
std::vector<HostLine> hosts_on(const OnWhat& on);
// How processes are started on these hosts; how many, and where, is said by `options`.
LaunchRequest launch_request(const LaunchRun& options, const std::vector<HostLine>& hosts, bool slurm);
bool on_several(const LaunchRequest& request);  // hosts

// Places for `nodes` processes (0: all that are not spare) on these hosts, one host after another; the last `spares` hosts
// stay free. Throws Error: there are too few.
struct Places {
  std::vector<std::string> places, spares;
};
Places choose_places(const std::vector<HostLine>& hosts, int nodes, int spares);

// Where each actor runs, a line a node.
std::string placement_text(const Config& config, const std::vector<std::string>& places);

}  // namespace troupe
