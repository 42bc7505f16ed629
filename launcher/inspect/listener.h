// A socket that listens for connections.
#pragma once

#include <cstdint>
#include <string>

namespace troupe {

struct Listener {
  int fd = -1;
  std::uint16_t port = 0;
};
// address: as listen_address makes it; port 0: any that is free. Whoever has the descriptor closes it. Throws Error.
Listener listen_on(const std::string& address, std::uint16_t port);

}  // namespace troupe
