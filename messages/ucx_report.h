// What UCX is and offers on this host, for whoever wants to know before a run does. Only the host's own memory and
// sockets are touched; no peer is needed.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct UcxReport {
  struct Way {
    std::string transport, device;  // "tcp", "eth0"
    bool operator==(const Way&) const = default;
  };
  std::string version;
  std::vector<Way> ways;
  std::vector<std::string> memory_types;  // that it moves: "host", "cuda"
  // Why a node's transport can't start with tls "auto" (shared memory), and with "tcp"; empty: it can.
  std::string auto_problem, tcp_problem;
  std::string any_problem;  // likewise with "any", between machines
  // What "auto" takes for messages, and for data too large to be copied twice; empty: UCX doesn't tell.
  std::string auto_small, auto_large;
};

UcxReport ask_ucx();  // never throws

}  // namespace troupe
