// NodeClient: asks a node's inspector thread (launcher/inspect/node_server.h). Each question has a deadline.
#pragma once

#include <cstdint>
#include <string>

#include "messages/codec_inspect.h"

namespace troupe {

class NodeClient {
 public:
  // address: "127.0.0.1:4711". Throws Error: it is none, or nobody answers there.
  NodeClient(const std::string& address, std::string token, int timeout_ms = 1000);
  ~NodeClient();
  NodeClient(const NodeClient&) = delete;
  NodeClient& operator=(const NodeClient&) = delete;

  // Throws Error: refused, or no answer in time.
  template <typename Reply, typename What>
  Reply ask(What what) {
    InspectReply reply = ask_any({token_, std::move(what)});
    if (auto* answer = std::get_if<Reply>(&reply)) return std::move(*answer);
    fail("it answered something else than what was asked; are both of one build?");
  }
  // What comes without being asked for: of a subscription.
  InspectReply next();
  // Asks for the node's end, which is its only answer.
  void kill_node();
  // An order; the answer's sentence. node: of this address, for the sentence.
  std::string obey(std::uint32_t node, decltype(InspectRequest::what) what);

 private:
  InspectReply ask_any(const InspectRequest& request);
  void send_all(const std::vector<std::byte>& bytes);
  void receive_all(std::byte* to, std::size_t size);
  [[noreturn]] void fail(const std::string& why) const;

  std::string address_, token_;
  int fd_ = -1, timeout_ms_;
};

}  // namespace troupe
