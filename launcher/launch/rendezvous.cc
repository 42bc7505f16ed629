#include "launcher/launch/rendezvous.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "launcher/inspect/run_token.h"

namespace troupe {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kGuestsMax = 64, kGuestLineMax = 4096;
constexpr std::chrono::seconds kGuestTime{5};
constexpr int kBacklog = 1024;

// Addresses of this machine, those of `interface` first, loopback only if there is nothing else: nodes may call the
// network that they share with this machine by another name than it does.
std::vector<std::string> own_addresses(const std::string& interface) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) throw Error("this machine's addresses can't be read");
  std::vector<std::string> found, loopback;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET || (one->ifa_flags & IFF_UP) == 0) continue;
    char text[INET_ADDRSTRLEN] = {};
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr, text, sizeof text);
    auto& list = (one->ifa_flags & IFF_LOOPBACK) != 0 && interface != one->ifa_name ? loopback : found;
    list.insert(interface == one->ifa_name ? list.begin() : list.end(), text);
  }
  freeifaddrs(all);
  if (found.empty()) found = loopback;
  if (found.empty()) throw Error("this machine has no IPv4 address that nodes could come to; `ip -4 addr` lists those");
  return found;
}

int listen_at(std::uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(port);
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (fd >= 0 && bind(fd, reinterpret_cast<const sockaddr*>(&place), sizeof place) == 0 && listen(fd, kBacklog) == 0)
    return fd;
  if (fd >= 0) close(fd);
  return -1;
}

std::uint16_t port_of(int fd) {
  sockaddr_in place{};
  socklen_t size = sizeof place;
  getsockname(fd, reinterpret_cast<sockaddr*>(&place), &size);
  return ntohs(place.sin_port);
}

}  // namespace

Rendezvous::Rendezvous(RendezvousOptions options) : options_(std::move(options)) {
  const std::vector<std::string> addresses = own_addresses(options_.interface);
  for (int port = options_.port_first; port <= options_.port_last && fd_ < 0; ++port)
    fd_ = listen_at(static_cast<std::uint16_t>(port));
  if (fd_ < 0)
    throw Error("no port from {} to {} is free for nodes to come to; change launch.ports", options_.port_first,
                options_.port_last);
  for (const std::string& address : addresses)
    addresses_ += fmt::format("{}{}:{}", addresses_.empty() ? "" : ",", address, port_of(fd_));
}

Rendezvous::~Rendezvous() { close(fd_); }

void Rendezvous::add_fds(std::vector<pollfd>& fds) const {
  fds.push_back({fd_, POLLIN, 0});
  for (const Guest& guest : guests_) fds.push_back({guest.socket.fd(), POLLIN, 0});
}

void Rendezvous::accept_guests() {
  for (;;) {
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    const int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (guests_.size() >= kGuestsMax) {  // the one that has said nothing for the longest goes
      close(fd);
      continue;
    }
    char text[INET_ADDRSTRLEN] = {};
    inet_ntop(AF_INET, &from.sin_addr, text, sizeof text);
    Guest& guest = guests_.emplace_back();
    guest.socket = ControlSocket(fd, kGuestLineMax);
    guest.from = fmt::format("{}:{}", text, ntohs(from.sin_port));
    guest.since = Clock::now();
  }
}

void Rendezvous::refuse(Guest& guest, const std::string& sentence) const {
  guest.socket.send(json{{"kind", "refused"}, {"sentence", sentence}}.dump());
  guest.over = true;
  if (options_.tells) std::fprintf(stderr, "\na process at %s was refused: %s\n", guest.from.c_str(), sentence.c_str());
}

std::string Rendezvous::why_not(const JoinRequest& request) const {
  if (request.protocol != kJoinProtocol || request.build != build_version())
    return fmt::format("it is of {} (protocol {}), this run of {} (protocol {}); all nodes must run the same build",
                       request.build, request.protocol, build_version(), kJoinProtocol);
  if (!request.digest.empty() && request.digest != options_.digest)
    return fmt::format("it was started for another configuration (digest {:.12}, this run's is {:.12})", request.digest,
                       options_.digest);
  const auto awaited = awaited_.find(request.node);
  if (awaited == awaited_.end() || awaited->second != request.incarnation)
    return fmt::format("nobody awaits life {} of node {}; it is there, or was given up", request.incarnation,
                       request.node);
  return "";
}

void Rendezvous::hear(Guest& guest, std::vector<Joined>& joined) {
  const bool open = guest.socket.read();
  while (auto line = guest.socket.next()) {
    if (!guest.request) {
      guest.request = join_request(*line);
      if (!guest.request) return refuse(guest, "it said something else than that it wants to join");
      guest.words = random_words();
      guest.socket.send(json{{"kind", "prove"},
                             {"words", guest.words},
                             {"proof", proof_of(options_.token, true, *guest.request, guest.words)}}
                            .dump());
      continue;
    }
    const json told = json::parse(*line, nullptr, false);
    const bool proves =
        told.is_object() && told.value("kind", "") == "proof" && told.contains("proof") && told["proof"].is_string();
    if (!proves || !same_secret(told["proof"], proof_of(options_.token, false, *guest.request, guest.words)))
      return refuse(guest, "it doesn't know the run's token");
    if (const std::string problem = why_not(*guest.request); !problem.empty()) {
      if (!options_.tells && refused_.size() < kGuestsMax) refused_.push_back({guest.request->node, problem});
      return refuse(guest, problem);
    }
    awaited_.erase(guest.request->node);
    guest.socket.trust();
    joined.push_back({guest.request->node, guest.request->incarnation, std::move(guest.socket)});
    guest.over = true;
    return;
  }
  if (!open) guest.over = true;
}

std::vector<Rendezvous::Joined> Rendezvous::look() {
  std::vector<Joined> joined;
  accept_guests();
  for (Guest& guest : guests_) {
    hear(guest, joined);
    if (!guest.over && Clock::now() - guest.since > kGuestTime) refuse(guest, "it did not prove itself in time");
  }
  std::erase_if(guests_, [](const Guest& guest) { return guest.over; });
  return joined;
}

}  // namespace troupe
