#include "launcher/inspect/node_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "actors/board.h"
#include "actors/journal.h"
#include "kernels/base/error.h"
#include "launcher/inspect/run_token.h"
#include "launcher/loop.h"
#include "messages/codec.h"

namespace troupe {

namespace {

constexpr std::uint32_t kEveryMsMin = 100;
constexpr std::uint32_t kRecordsMax = 1'000'000;  // of a journal, in one answer

std::int64_t now_ms() { return monotonic_us() / 1000; }

void ring(int fd) {
  const std::uint64_t one = 1;
  if (write(fd, &one, sizeof one) != sizeof one) return;  // it rings already
}

sockaddr_in address_of(const std::string& text, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1)
    throw Error("inspect.listen is \"{}\", which is no IPv4 address", text);
  return address;
}

}  // namespace

// Somebody who asks. What is to be sent is bounded: a new answer is made when the last one has left.
struct NodeServer::Peer {
  int fd = -1;
  std::vector<std::byte> in, out;
  std::size_t sent = 0;
  std::int64_t heard_ms = 0;
  std::uint32_t every_ms = 0;  // a subscriber; 0: none
  std::int64_t told_ms = 0;
  bool gone = false;

  void close_now() {
    if (fd >= 0) close(std::exchange(fd, -1));
    gone = true;
  }
  void say(std::vector<std::byte> bytes) {
    out = std::move(bytes);
    sent = 0;
    flush();
  }
  void flush() {
    while (sent < out.size()) {
      const ssize_t put = send(fd, out.data() + sent, out.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (put <= 0) return close_now();
      sent += static_cast<std::size_t>(put);
    }
    out.clear();
    sent = 0;
  }
};

NodeServer::NodeServer(NodeServerOptions options) : options_(std::move(options)) {
  sockaddr_in address = address_of(options_.address, 0);
  loopback_ = (ntohl(address.sin_addr.s_addr) >> 24) == 127;
  listen_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  socklen_t size = sizeof address;
  const bool listens = listen_fd_ >= 0 && bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                       listen(listen_fd_, SOMAXCONN) == 0 &&
                       getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  orders_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (!listens || wake_fd_ < 0 || orders_fd_ < 0)
    throw Error("the inspector can't listen on {}: {}; choose another inspect.listen", options_.address,
                std::strerror(errno));
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

NodeServer::~NodeServer() {
  ring(wake_fd_);
  thread_.join();
  for (const int fd : {listen_fd_, wake_fd_, orders_fd_}) close(fd);
}

std::vector<NodeServer::Order> NodeServer::take_orders() {
  std::uint64_t count = 0;
  if (read(orders_fd_, &count, sizeof count) != sizeof count) return {};
  const std::lock_guard lock(mutex_);
  return std::exchange(orders_, {});
}

void NodeServer::order(Order order) {
  {
    const std::lock_guard lock(mutex_);
    orders_.push_back(std::move(order));
  }
  ring(orders_fd_);
}

// ---- The thread -----------------------------------------------------------------------------------------------------

void NodeServer::serve() {
  std::vector<Peer> peers;
  for (;;) {
    std::vector<pollfd> fds{{wake_fd_, POLLIN, 0}, {listen_fd_, POLLIN, 0}};
    bool subscribed = false;
    for (const Peer& peer : peers) {
      fds.push_back({peer.fd, static_cast<short>(peer.out.empty() ? POLLIN : POLLOUT), 0});
      subscribed = subscribed || peer.every_ms > 0;
    }
    poll(fds.data(), fds.size(), subscribed ? static_cast<int>(kEveryMsMin) : 1000);
    if (fds[0].revents != 0) break;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const short events = fds[i + 2].revents;
      if ((events & POLLOUT) != 0) peers[i].flush();
      if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !peers[i].gone && !read_peer(peers[i])) peers[i].close_now();
    }
    const std::int64_t now = now_ms();
    tell_subscribers(peers, now);
    for (Peer& peer : peers)
      if (!peer.gone && peer.every_ms == 0 && now - peer.heard_ms > options_.idle_ms) peer.close_now();
    std::erase_if(peers, [](const Peer& peer) { return peer.gone; });
    if (fds[1].revents != 0) accept_peers(peers);
  }
  for (Peer& peer : peers) peer.close_now();
}

// Of more than there is room for, whoever has asked nothing for longest makes room.
void NodeServer::accept_peers(std::vector<Peer>& peers) const {
  for (;;) {
    const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (peers.size() >= options_.connections_max) {
      const auto oldest = std::min_element(peers.begin(), peers.end(), [](const Peer& a, const Peer& b) {
        return std::pair(a.every_ms > 0, a.heard_ms) < std::pair(b.every_ms > 0, b.heard_ms);
      });
      oldest->close_now();
      peers.erase(oldest);
    }
    Peer peer;
    peer.fd = fd;
    peer.heard_ms = now_ms();
    peers.push_back(std::move(peer));
  }
}

// False: it is gone, or says what nobody can read.
bool NodeServer::read_peer(Peer& peer) {
  std::array<std::byte, 16384> bytes{};
  const ssize_t got = recv(peer.fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
  if (got == 0) return false;
  peer.in.insert(peer.in.end(), bytes.begin(), bytes.begin() + got);
  std::uint32_t length = 0;
  while (!peer.gone && peer.out.empty() && peer.in.size() >= sizeof length) {
    std::memcpy(&length, peer.in.data(), sizeof length);
    if (length > kInspectRequestMax) return false;
    if (peer.in.size() < sizeof length + length) return true;
    const auto request = decode_inspect_request(peer.in.data() + sizeof length, length);
    peer.in.erase(peer.in.begin(), peer.in.begin() + static_cast<std::ptrdiff_t>(sizeof length + length));
    if (!request) return false;
    peer.heard_ms = now_ms();
    answer(peer, *request);
  }
  return peer.in.size() <= sizeof length + kInspectRequestMax;
}

void NodeServer::tell_subscribers(std::vector<Peer>& peers, std::int64_t now) const {
  std::vector<std::byte> reply;
  for (Peer& peer : peers) {
    if (peer.gone || peer.every_ms == 0 || !peer.out.empty() || now - peer.told_ms < peer.every_ms) continue;
    if (reply.empty()) reply = encode(InspectReply(snapshot()));
    peer.told_ms = now;
    peer.say(reply);
  }
}

// ---- Answers --------------------------------------------------------------------------------------------------------

Snapshot NodeServer::snapshot() const {
  return {monotonic_us(), copy_board(options_.board.data(), options_.board.size())};
}

bool NodeServer::may(const InspectRequest& request, bool control) const {
  if (!control && loopback_) return true;
  return !options_.token.empty() && same_secret(request.token, options_.token);
}

void NodeServer::answer(Peer& peer, const InspectRequest& request) {
  const InspectReply reply = reply_to(request);
  if (const auto* subscribe = std::get_if<Subscribe>(&request.what); subscribe != nullptr && reply.index() != 0) {
    peer.every_ms = std::max(kEveryMsMin, subscribe->every_ms);
    peer.told_ms = now_ms();
  }
  peer.say(encode(reply));
}

InspectReply NodeServer::reply_to(const InspectRequest& request) {
  const bool control = std::holds_alternative<Pause>(request.what) || std::holds_alternative<KillNode>(request.what) ||
                       std::holds_alternative<Inject>(request.what);
  if (!may(request, control)) return NodeRefused{"the run's token is needed (RUN/token), and this is not it"};
  if (std::holds_alternative<ReadConfig>(request.what)) return ConfigText{options_.config_toml};
  if (const auto* range = std::get_if<ReadJournal>(&request.what)) {
    if (options_.journal.empty()) return NodeRefused{"this node keeps no journal (inspect.journal_mib = 0)"};
    const auto page = read_journal(options_.journal.data(), options_.journal.size(), range->first,
                                   std::min(range->most, kRecordsMax));
    return page ? InspectReply(JournalPart{page->written, pack_journal(*page)})
                : NodeRefused{"the journal can't be read"};
  }
  if (const auto* pause = std::get_if<Pause>(&request.what)) {
    order(*pause);
    if (!pause->on) return Said{"the run goes on"};
    if (pause->steps > 0)
      return Said{fmt::format("the run pauses after {} more step{}", pause->steps, pause->steps > 1 ? "s" : "")};
    return Said{"the run pauses when the step under way is committed"};
  }
  if (std::holds_alternative<KillNode>(request.what)) {
    raise(SIGKILL);
    return NodeRefused{"the process could not be killed"};
  }
  if (const auto* inject = std::get_if<Inject>(&request.what)) {
    Frame frame;
    frame.header.assign(inject->frame.begin(), inject->frame.end());
    std::string problem;
    auto decoded = decode(frame, problem);
    if (!decoded || !decoded->envelope)
      return NodeRefused{"no message can be made of what should be injected: " + problem};
    const std::string said = fmt::format("{} is on its way to {}; the run is marked as tainted",
                                         kind_of(decoded->envelope->message), to_string(decoded->envelope->to));
    order(std::move(*decoded->envelope));
    return Said{said};
  }
  return snapshot();
}

}  // namespace troupe
