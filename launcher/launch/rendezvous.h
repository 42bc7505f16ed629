// Where node processes from elsewhere come to: a listening socket of the launcher's. Whoever knows the run's token, speaks
// this build's language, and is awaited, gets a control socket; everybody else a sentence, and the run doesn't notice.
// The law: nothing here blocks, and what strangers can make it hold is bounded.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launcher/launch/handshake.h"
#include "messages/control_socket.h"

namespace troupe {

struct RendezvousOptions {
  std::string token;
  std::string digest;                           // of the run's configuration
  std::string interface;                        // nodes try its address first
  std::uint16_t port_first = 0, port_last = 0;  // the first that is free; 0: any
  bool tells = true;                            // on standard error, whom it refused; else refused() does
};

class Rendezvous {
 public:
  // Throws Error: no port is free.
  explicit Rendezvous(RendezvousOptions options);
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  // Where a node may find it: "10.77.0.1:4711,192.168.1.5:4711", the machine's own addresses.
  const std::string& addresses() const { return addresses_; }
  // This process was started and has yet to come. Older ones of the node are no longer awaited.
  void await(std::uint32_t node, std::uint32_t incarnation) { awaited_[node] = incarnation; }

  struct Joined {
    std::uint32_t node = 0, incarnation = 0;
    ControlSocket socket{-1};
  };
  void add_fds(std::vector<pollfd>& fds) const;
  // Who has come.
  std::vector<Joined> look();
  struct Refused {
    std::uint32_t node = 0;
    std::string sentence;
  };
  // Since the last call: those who know the token and were refused all the same.
  std::vector<Refused> refused() { return std::exchange(refused_, {}); }

 private:
  struct Guest {
    ControlSocket socket{-1};
    std::string from;
    std::chrono::steady_clock::time_point since;
    std::optional<JoinRequest> request;
    std::string words;
    bool over = false;
  };
  void accept_guests();
  void hear(Guest& guest, std::vector<Joined>& joined);
  std::string why_not(const JoinRequest& request) const;
  void refuse(Guest& guest, const std::string& sentence) const;

  RendezvousOptions options_;
  std::string addresses_;
  int fd_ = -1;
  std::map<std::uint32_t, std::uint32_t> awaited_;  // node -> incarnation
  std::vector<Guest> guests_;
  std::vector<Refused> refused_;
};

}  // namespace troupe
