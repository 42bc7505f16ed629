// Launch: the places of a run whose node processes run elsewhere, and how a process is started at one: by a command that
// is run here (ssh, srun), whose standard input carries the run's token and is the process's leash: when it closes, by
// whatever end of the launcher, the process ends. What it says comes back as its log; its control socket comes to the
// rendezvous.
#pragma once

#include <sys/types.h>

#include <deque>
#include <string>
#include <vector>

#include "launcher/launch/rendezvous.h"

namespace troupe {

struct LaunchRequest {
  bool slurm = false;               // inside an allocation: srun; else ssh
  bool here = false;                // on this machine, whatever the places are called
  std::vector<std::string> ssh;     // the command, in words: {"ssh"}, {"ssh", "-F", "FILE"}
  std::string program;              // this one, on the hosts
  std::string folder;               // processes work here, if it is there
  std::vector<std::string> places;  // a host for every node
  std::vector<std::string> spares;  // for those that are lost
  int threads = 0;                  // cores that srun asks for each process
  std::string command;              // that continues the run
};

struct Started {
  pid_t pid = -1;
  int log_fd = -1, leash_fd = -1;
};

class Launch {
 public:
  // Throws Error: as Rendezvous does.
  Launch(LaunchRequest request, RendezvousOptions rendezvous);
  // Throws Error: no process can be started here.
  Started start(std::uint32_t node, std::uint32_t incarnation);
  const std::string& where(std::uint32_t node) const { return request_.places.at(node); }
  int beside(std::uint32_t node) const;  // how many are at its place, itself too
  // The node's place is given up for a spare, if there is one; the place becomes the last spare. False: there is none.
  bool move(std::uint32_t node);
  bool has_spare() const { return !spares_.empty(); }
  const std::vector<std::string>& places() const { return request_.places; }
  Rendezvous& rendezvous() { return rendezvous_; }

 private:
  std::vector<std::string> command(std::uint32_t node, std::uint32_t incarnation) const;
  LaunchRequest request_;
  std::string token_;
  std::deque<std::string> spares_;
  Rendezvous rendezvous_;
};

}  // namespace troupe
