// Local node processes: started, introduced to each other, watched, replaced and ended by the launcher's process, which
// is the supervisor: it computes nothing, uses no UCX, and raises the attempt. A process's death is the end of its
// control socket; a process that is silent for too long is killed. Its successor has the next incarnation.
//
// On the control socket, one JSON object a line:
//   launcher -> node  start {config, node, incarnation, mode, token, run_folder}
//                     peers {introduction, peers: [{node, incarnation, address}]}   forget {node}   end {}
//   launcher -> 0     recover {attempt, version, path, weights_only}   stop {reason}
//   node -> launcher  hello {address, build, machine, digest}   up {introduction}: it is followed
//                     alive {bill}   silent {peers, bill}   report {report, json}
//                     failed {sentence}   ended {bill}
#pragma once

#include "actors/config.h"
#include "launcher/bill.h"
#include "launcher/run_folder.h"
#include "messages/message.h"

namespace troupe {

int train_in_processes(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill, bool quiet);

// `troupe node --socket FD`: a node process. Returns its exit code.
int node_main(int socket_fd);

}  // namespace troupe
