// Node processes, on this machine or on others (launcher/launch): started, introduced to each other, watched, replaced
// and ended by the launcher's process, which is the supervisor: it computes nothing, uses no UCX, and raises the attempt.
// A process's death is the end of its control socket; a process that is silent for too long is killed. Its successor has
// the next incarnation. A process on another machine that hears nothing from its launcher for limits.silence_ms ends
// itself, so that the launcher, who hears nothing either, knows when its successor may begin.
//
// On the control socket, one JSON object a line:
//   launcher -> node  start {config, node, incarnation, mode, token, run_folder}
//                     peers {introduction, peers: [{node, incarnation, address}]}   forget {node}   end {}
//                     alive {}, to other machines
//   launcher -> 0     recover {attempt, version, path, weights_only}   stop {reason}
//   node -> launcher  hello {address, build, machine, digest}   up {introduction}: it is followed
//                     alive {bill}   silent {peers, bill}   report {report, json}
//                     failed {sentence}   ended {bill}
#pragma once

#include "actors/config.h"
#include "launcher/bill.h"
#include "launcher/launch/join.h"
#include "launcher/launch/launch.h"
#include "launcher/run_folder.h"
#include "messages/message.h"

namespace troupe {

// The host of a node is gone, and no spare one is left: the run may go on without it.
struct HostLost {
  std::uint32_t node = 0;
};

// launch: where the processes run; null: here. Throws HostLost if there is another host.
int train_in_processes(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill, bool quiet,
                       Launch* launch);

// `troupe node --socket FD`: a node process of a launcher on this machine. Returns its exit code.
int node_main(int socket_fd);
// `troupe node --join ADDRESSES`: of one on another.
int node_from_elsewhere(const JoinOptions& options);

}  // namespace troupe
