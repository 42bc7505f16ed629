#include "launcher/launch/join.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/inspect/run_token.h"
#include "launcher/launch/handshake.h"

namespace troupe {

using nlohmann::json;

namespace {

// Who is no launcher of this run.
struct Stranger : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int kConnectMs = 3000, kAnswerMs = 5000;

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// -1: nobody answers there.
int connect_to(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  sockaddr_in place{};
  place.sin_family = AF_INET;
  if (colon == std::string::npos || inet_pton(AF_INET, address.substr(0, colon).c_str(), &place.sin_addr) != 1)
    throw Error("--join {}: is no address of a launcher, such as 10.77.0.1:4711", address);
  place.sin_port = htons(static_cast<std::uint16_t>(std::strtoul(address.c_str() + colon + 1, nullptr, 10)));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&place), sizeof place) != 0 && errno != EINPROGRESS) {
    close(fd);  // no way leads there
    return -1;
  }
  pollfd ready{fd, POLLOUT, 0};
  int problem = 0;
  socklen_t size = sizeof problem;
  if (poll(&ready, 1, kConnectMs) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size) == 0 && problem == 0)
    return fd;
  close(fd);
  return -1;
}

// Throws Error: none in time, or what the launcher has against us.
json answer(ControlSocket& socket, const std::string& address) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kAnswerMs);
  for (bool open = true;; open = socket.read()) {
    if (auto line = socket.next()) {
      json told = json::parse(*line, nullptr, false);
      if (told.is_object() && told.value("kind", "") == "refused")
        throw Error("the launcher at {} refused this process: {}", address, told.value("sentence", ""));
      return told;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (!open || left.count() <= 0) throw Stranger("whoever listens at " + address + " is no launcher of this run");
    pollfd ready{socket.fd(), POLLIN, 0};
    poll(&ready, 1, static_cast<int>(left.count()));
  }
}

ControlSocket prove_to(ControlSocket socket, const std::string& address, const JoinOptions& options) {
  const JoinRequest request{
      kJoinProtocol,  build_version(),
      random_words(), options.config_path.empty() ? "" : numbers_digest(load_config(options.config_path, {})),
      options.node,   options.incarnation};
  socket.send(to_line(request));
  const json told = answer(socket, address);
  const std::string words = told.is_object() ? told.value("words", "") : "";
  const std::string proof = told.is_object() ? told.value("proof", "") : "";
  if (!same_secret(proof, proof_of(options.token, true, request, words)))
    throw Stranger("whoever listens at " + address + " doesn't know the run's token");
  socket.send(json{{"kind", "proof"}, {"proof", proof_of(options.token, false, request, words)}}.dump());
  return socket;
}

}  // namespace

// Of several addresses some may be other machines' too, as those of bridges are: there somebody else listens.
ControlSocket join_run(const JoinOptions& options) {
  std::string problems;
  for (const std::string& address : split(options.addresses)) {
    const int fd = connect_to(address);
    try {
      if (fd < 0) throw Stranger(address + " doesn't answer");
      return prove_to(ControlSocket(fd), address, options);
    } catch (const Stranger& stranger) {
      problems += (problems.empty() ? "" : "; ") + std::string(stranger.what());
    }
  }
  throw Error("node {} can't reach its launcher: {}; is a firewall between, or --interface the wrong one?",
              options.node, problems);
}

std::string token_from_stdin() {
  std::string token;
  for (char c = 0; token.size() <= 2 * kTokenBytes && ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n';) token += c;
  if (token.size() != 2 * kTokenBytes) throw Error("the run's token must come on standard input, as its first line");
  return token;
}

}  // namespace troupe
