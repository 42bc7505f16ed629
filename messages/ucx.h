// UCX between processes: one context, one worker, one endpoint a peer; active messages, event-driven wake-up.
#pragma once

#include <memory>
#include <string>

#include "messages/transport.h"

namespace troupe {

struct UcxOptions {
  std::string tls = "auto";  // "auto" (shared memory on one host), "shm", "tcp"
  std::string interface;     // network device of tcp ("lo", "eth0"); empty: UCX chooses
};

// Throws Error when UCX can't start, saying what to do.
std::unique_ptr<Transport> make_ucx_transport(const UcxOptions& options, PayloadPool& pool);

}  // namespace troupe
