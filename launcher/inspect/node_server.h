// NodeServer: the inspector thread of a node. It answers from the node's board and journal, so it answers when the loop
// is stuck in a handler; what it is asked to do it hands to the loop. On a socket of this machine, a request or several a
// connection (messages/codec_inspect.h). The law: whatever comes, the run is unharmed: connections, requests and the time
// that they may take are bounded, and nothing is done without the run's token.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "messages/codec_inspect.h"

namespace troupe {

struct NodeServerOptions {
  std::string address = "127.0.0.1";  // where it listens; elsewhere than on loopback reading needs the token too
  std::string token{};                // empty: nobody may control
  std::string config_toml{};
  std::span<const std::byte> board{}, journal{};  // mapped; journal may be empty
  std::size_t connections_max = 64, subscribers_max = 16;
  std::int64_t idle_ms = 30'000;  // a connection that asks nothing is closed
};

class NodeServer {
 public:
  // Throws Error: it can't listen.
  explicit NodeServer(NodeServerOptions options);
  ~NodeServer();
  NodeServer(const NodeServer&) = delete;
  NodeServer& operator=(const NodeServer&) = delete;
  std::uint16_t port() const { return port_; }

  // What the loop is to do; the descriptor is readable while there is something.
  using Order = std::variant<Pause, Envelope>;
  int orders_fd() const { return orders_fd_; }
  std::vector<Order> take_orders();

 private:
  struct Peer;
  void serve();
  void accept_peers(std::vector<Peer>& peers) const;
  bool read_peer(Peer& peer);
  void answer(Peer& peer, const InspectRequest& request);
  InspectReply reply_to(const InspectRequest& request);
  Snapshot snapshot() const;
  void tell_subscribers(std::vector<Peer>& peers, std::int64_t now_ms) const;
  bool may(const InspectRequest& request, bool control) const;
  void order(Order order);

  NodeServerOptions options_;
  bool loopback_ = true;
  int listen_fd_ = -1, wake_fd_ = -1, orders_fd_ = -1;
  std::uint16_t port_ = 0;
  std::mutex mutex_;  // of the orders
  std::vector<Order> orders_;
  std::thread thread_;
};

}  // namespace troupe
