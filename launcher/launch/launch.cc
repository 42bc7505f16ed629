#include "launcher/launch/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "kernels/base/error.h"
#include "launcher/program.h"

namespace troupe {

Launch::Launch(LaunchRequest request, RendezvousOptions rendezvous)
    : request_(std::move(request)),
      token_(rendezvous.token),
      spares_(request_.spares.begin(), request_.spares.end()),
      rendezvous_(std::move(rendezvous)) {}

std::vector<std::string> Launch::command(std::uint32_t node, std::uint32_t incarnation) const {
  const std::vector<std::string> process{request_.program, "node",
                                         "--join",         rendezvous_.addresses(),
                                         "--node",         std::to_string(node),
                                         "--incarnation",  std::to_string(incarnation)};
  if (request_.here) return process;
  const std::string& host = where(node);
  if (request_.slurm) {
    std::vector<std::string> words{"srun",      "--nodes=1",    "--ntasks=1", "--nodelist=" + host,
                                   "--overlap", "--unbuffered", "--quiet"};
    if (request_.threads > 0) words.push_back(fmt::format("--cpus-per-task={}", request_.threads));
    words.insert(words.end(), process.begin(), process.end());
    return words;
  }
  std::string line = fmt::format("cd {} 2>/dev/null; exec", shell_quoted(request_.folder));
  for (const std::string& word : process) line += " " + shell_quoted(word);
  std::vector<std::string> words = request_.ssh;
  words.insert(words.end(), {"-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, line});
  return words;
}

Started Launch::start(std::uint32_t node, std::uint32_t incarnation) {
  const std::vector<std::string> words = command(node, incarnation);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::array<int, 2> log{}, leash{};
  if (pipe2(log.data(), O_CLOEXEC) != 0 || pipe2(leash.data(), O_CLOEXEC) != 0)
    throw Error("can't make a pipe for node {}; too many open files?", node);
  rendezvous_.await(node, incarnation);
  const pid_t pid = fork();
  if (pid < 0) throw Error("can't start node {}: the process limit is reached", node);
  if (pid == 0) {
    setpgid(0, 0);  // Ctrl-C reaches the launcher alone, which decides
    signal(SIGPIPE, SIG_DFL);
    dup2(leash[0], STDIN_FILENO);
    dup2(log[1], STDOUT_FILENO);
    dup2(log[1], STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    const std::string problem = fmt::format("{}: there is no such program here\n", words[0]);
    if (write(STDERR_FILENO, problem.data(), problem.size()) < 0) _exit(126);
    _exit(127);
  }
  close(leash[0]);
  close(log[1]);
  fcntl(log[0], F_SETFL, O_NONBLOCK);
  const std::string token = token_ + "\n";
  // A command that has ended already says why in its log.
  if (write(leash[1], token.data(), token.size()) < 0 && errno != EPIPE)
    throw Error("can't tell node {} the run's token", node);
  return {pid, log[0], leash[1]};
}

// Under Slurm each has cores of its own.
int Launch::beside(std::uint32_t node) const {
  if (request_.slurm && request_.threads > 0) return 1;
  const auto& places = request_.places;
  return static_cast<int>(request_.here ? std::ssize(places) : std::count(places.begin(), places.end(), where(node)));
}

bool Launch::move(std::uint32_t node) {
  if (spares_.empty()) return false;
  spares_.push_back(std::exchange(request_.places.at(node), spares_.front()));
  spares_.pop_front();
  return true;
}

}  // namespace troupe
