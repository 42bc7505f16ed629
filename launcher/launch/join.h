// A node process that comes from elsewhere joins its run.
#pragma once

#include <cstdint>
#include <string>

#include "messages/control_socket.h"

namespace troupe {

struct JoinOptions {
  std::string addresses;  // of the launcher: "10.77.0.1:4711,192.168.1.5:4711"; the first that proves itself
  std::string token;
  std::string config_path;  // what it was started for; empty: whatever the launcher says
  std::uint32_t node = 0, incarnation = 0;
};
// Throws Error: nobody there knows the token, or this process is not wanted, with the launcher's sentence.
ControlSocket join_run(const JoinOptions& options);

// The run's token: the first line of standard input. Throws Error.
std::string token_from_stdin();

}  // namespace troupe
