// Local node processes: started, introduced to each other, watched and ended by the launcher's process, which is the
// supervisor: it computes nothing, uses no UCX, and raises the attempt. A process's death is the end of its control
// socket; then the run ends, resumable, and no process is left behind.
//
// On the control socket, one JSON object a line:
//   launcher -> node  start {config, node, incarnation, mode, run_folder}   peers {peers: [{node, incarnation,
//   address}]}
//                     restore {version, attempt, path, weights_only}        stop {reason}      end {}
//   node -> launcher  hello {address, build, machine, digest}   up {}   report {kind, json}   failed {sentence}
#pragma once

#include "actors/config.h"
#include "launcher/run_folder.h"
#include "messages/message.h"

namespace troupe {

int train_in_processes(const Config& config, RunFolder& folder, const Recover& begin, bool quiet);

// `troupe node --socket FD`: a node process. Returns its exit code.
int node_main(int socket_fd);

std::string to_hex(const std::string& bytes);
std::string from_hex(const std::string& hex);

}  // namespace troupe
