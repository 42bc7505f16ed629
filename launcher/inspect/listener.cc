#include "launcher/inspect/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/base/error.h"

namespace troupe {

namespace {

constexpr int kBacklog = 256;

struct Place {
  sockaddr_storage bytes{};
  socklen_t size = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&bytes); }
};

Place place_of(const std::string& address, std::uint16_t port) {
  Place place;
  if (address.front() == '[') {
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    inet_pton(AF_INET6, address.substr(1, address.size() - 2).c_str(), &six.sin6_addr);
    place.size = sizeof six;
    std::memcpy(&place.bytes, &six, sizeof six);
  } else {
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    inet_pton(AF_INET, address.c_str(), &four.sin_addr);
    place.size = sizeof four;
    std::memcpy(&place.bytes, &four, sizeof four);
  }
  return place;
}

std::string what_to_do(int problem) {
  if (problem == EADDRINUSE) return "somebody listens there already; choose another with --port";
  if (problem == EACCES) return "this account may not; choose a port from 1024 on with --port";
  if (problem == EADDRNOTAVAIL) return "this machine doesn't have that address; choose one of its own with --listen";
  return std::strerror(problem);
}

}  // namespace

Listener listen_on(const std::string& address, std::uint16_t port) {
  Place place = place_of(address, port);
  Listener listener;
  listener.fd = socket(place.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int yes = 1;  // a server that has just ended may be followed by another
  if (listener.fd < 0 || setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(listener.fd, place.get(), place.size) != 0 || listen(listener.fd, kBacklog) != 0 ||
      getsockname(listener.fd, place.get(), &place.size) != 0) {
    const int problem = errno;
    if (listener.fd >= 0) close(listener.fd);
    throw Error("{}:{}: can't listen there: {}", address, port, what_to_do(problem));
  }
  std::uint16_t number = 0;  // stands at the same place in both kinds of address
  std::memcpy(&number, reinterpret_cast<const char*>(&place.bytes) + offsetof(sockaddr_in, sin_port), sizeof number);
  listener.port = ntohs(number);
  return listener;
}

}  // namespace troupe
