// UCX between processes: one context, one worker, one endpoint a peer; active messages, event-driven wake-up.
#pragma once

#include <cstdint>
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

// Device memory that this process's payloads may lie in.
struct UcxDevice {
  PayloadPool* pool = nullptr;  // of what arrives there; null: none is carried
  bool is_host = false;         // to others it is the processor's memory, and not CUDA's
  std::uint64_t name = 0;       // of this process, and no other's that it talks to; not 0
};

// Throws Error when UCX can't start, saying what to do. Device memory is carried where UCX moves CUDA's memory at both
// ends. REQUIRES: where it is CUDA's, the GPU of this thread is the device's.
std::unique_ptr<Transport> make_ucx_transport(const UcxOptions& options, PayloadPool& pool,
                                              const UcxDevice& device = {});

}  // namespace troupe
