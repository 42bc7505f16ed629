// UCX between processes: one context, one worker, one endpoint a peer; active messages, event-driven wake-up.
#pragma once

#include <memory>
#include <string>

#include "messages/transport.h"

namespace troupe {

struct UcxOptions {
  // "auto", "shm": shared memory of one machine. "tcp". "ib": InfiniBand or RoCE between machines, shared memory within
  // one. "any": what both ends of a pair have, of all of these the quickest.
  std::string tls = "auto";
  std::string interface;  // the network device between machines ("lo", "eth0", "mlx5_0:1"); empty: UCX chooses
};

// Throws Error when UCX can't start, saying what to do.
std::unique_ptr<Transport> make_ucx_transport(const UcxOptions& options, PayloadPool& pool);

}  // namespace troupe
