// Two processes that hold the ends of one socket pair, for what only real processes show. Neither is this one: UCX must
// not have been used before fork.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

namespace troupe {

// What one of the two does with its end of the socket pair; empty if all was well, else what was not.
using ProcessBody = std::function<std::string(int socket)>;

[[noreturn]] inline void run_process(const ProcessBody& body, int socket) {
  std::string problem;
  try {
    problem = body(socket);
  } catch (const std::exception& e) {
    problem = e.what();
  }
  if (!problem.empty()) std::fprintf(stderr, "process %d: %s\n", int(::getpid()), problem.c_str());
  std::fflush(nullptr);
  ::_exit(problem.empty() ? 0 : 1);
}

// Both wait statuses: 0 for all well, SIGKILL for one that was killed, by itself or for taking longer than `seconds`.
inline std::array<int, 2> run_two_processes(const ProcessBody& first, const ProcessBody& second, int seconds = 60) {
  int sockets[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) return {-1, -1};
  std::array<pid_t, 2> children{};
  std::fflush(nullptr);  // or both print what waits
  for (std::size_t i = 0; i < 2; ++i) {
    children[i] = ::fork();
    if (children[i] != 0) continue;
    ::close(sockets[1 - i]);
    run_process(i == 0 ? first : second, sockets[i]);
  }
  ::close(sockets[0]);
  ::close(sockets[1]);
  std::array<int, 2> status{};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (std::size_t i = 0; i < 2; ++i)
    while (::waitpid(children[i], &status[i], WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline) ::kill(children[i], SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  return status;
}

// One length-prefixed string each way, in blocking mode.
inline std::string swap_strings(int socket, const std::string& mine) {
  const auto size = static_cast<std::uint32_t>(mine.size());
  std::string out(reinterpret_cast<const char*>(&size), sizeof size);
  out += mine;
  if (::send(socket, out.data(), out.size(), MSG_NOSIGNAL) != ssize_t(out.size())) return {};
  std::uint32_t theirs = 0;
  if (::recv(socket, &theirs, sizeof theirs, MSG_WAITALL) != ssize_t(sizeof theirs)) return {};
  std::string in(theirs, '\0');
  return ::recv(socket, in.data(), theirs, MSG_WAITALL) == ssize_t(theirs) ? in : std::string();
}

}  // namespace troupe
