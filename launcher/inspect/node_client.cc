#include "launcher/inspect/node_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "kernels/base/error.h"
#include "launcher/loop.h"

namespace troupe {

namespace {

sockaddr_in parse(const std::string& text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  const std::size_t colon = text.rfind(':');
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const bool has_port =
      colon != std::string::npos && std::from_chars(text.data() + colon + 1, end, port).ptr == end && port > 0;
  const std::string host = has_port ? text.substr(0, colon) : "";
  if (!has_port || inet_pton(AF_INET, host == "localhost" ? "127.0.0.1" : host.c_str(), &address.sin_addr) != 1)
    throw Error("{} is no address of a node: give one as 127.0.0.1:4711", text);
  address.sin_port = htons(port);
  return address;
}

}  // namespace

NodeClient::NodeClient(const std::string& address, std::string token, int timeout_ms)
    : address_(address), token_(std::move(token)), timeout_ms_(timeout_ms) {
  const sockaddr_in to = parse(address);
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool begun =
      fd_ >= 0 && (connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 || errno == EINPROGRESS);
  pollfd ready{fd_, POLLOUT, 0};
  int problem = errno;
  socklen_t size = sizeof problem;
  const bool in_time = begun && poll(&ready, 1, timeout_ms) == 1;
  const bool connected = in_time && getsockopt(fd_, SOL_SOCKET, SO_ERROR, &problem, &size) == 0 && problem == 0;
  if (connected) return;
  if (fd_ >= 0) close(fd_);
  throw Error("{}: no node answers there ({})", address, begun && !in_time ? "in time" : std::strerror(problem));
}

NodeClient::~NodeClient() { close(fd_); }

void NodeClient::fail(const std::string& why) const { throw Error("{}: {}", address_, why); }

void NodeClient::send_all(const std::vector<std::byte>& bytes) {
  for (std::size_t sent = 0; sent < bytes.size();) {
    pollfd ready{fd_, POLLOUT, 0};
    if (poll(&ready, 1, timeout_ms_) != 1) fail("it takes no question");
    const ssize_t put = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (put <= 0) fail("the connection is lost");
    sent += static_cast<std::size_t>(put);
  }
}

void NodeClient::receive_all(std::byte* to, std::size_t size) {
  const std::int64_t until_us = monotonic_us() + std::int64_t{1000} * timeout_ms_;
  for (std::size_t got = 0; got < size;) {
    const auto left_ms = static_cast<int>((until_us - monotonic_us()) / 1000);
    pollfd ready{fd_, POLLIN, 0};
    if (left_ms <= 0 || poll(&ready, 1, left_ms) != 1) fail("it gives no answer: its process may be stopped");
    const ssize_t more = recv(fd_, to + got, size - got, 0);
    if (more <= 0) fail("the connection is lost");
    got += static_cast<std::size_t>(more);
  }
}

InspectReply NodeClient::next() {
  std::uint32_t length = 0;
  receive_all(reinterpret_cast<std::byte*>(&length), sizeof length);
  if (length > kInspectReplyMax) fail("it answered what can't be read; is it a node of Troupe?");
  std::vector<std::byte> bytes(length);
  receive_all(bytes.data(), bytes.size());
  auto reply = decode_inspect_reply(bytes.data(), bytes.size());
  if (!reply) fail("it answered what can't be read; are both of one build?");
  return std::move(*reply);
}

InspectReply NodeClient::ask_any(const InspectRequest& request) {
  send_all(encode(request));
  InspectReply reply = next();
  if (const auto* refused = std::get_if<NodeRefused>(&reply)) fail("refused: " + refused->sentence);
  return reply;
}

void NodeClient::kill_node() {
  send_all(encode(InspectRequest{token_, KillNode{}}));
  try {
    const InspectReply reply = next();
    if (const auto* refused = std::get_if<NodeRefused>(&reply)) throw Error("refused: {}", refused->sentence);
  } catch (const Error& error) {
    if (std::string(error.what()).find("refused") != std::string::npos) fail(error.what());
  }
}

std::string NodeClient::obey(std::uint32_t node, decltype(InspectRequest::what) what) {
  if (!std::holds_alternative<KillNode>(what)) return ask<Said>(std::move(what)).sentence;
  kill_node();
  return fmt::format("node {} is killed", node);
}

}  // namespace troupe
