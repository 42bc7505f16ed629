#include "launcher/processes.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/program.h"
#include "launcher/progress.h"
#include "messages/control_socket.h"

namespace troupe {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

volatile std::sig_atomic_t interrupts = 0;
void count_interrupt(int) { interrupts = interrupts + 1; }

struct Child {
  std::uint32_t node = 0;
  pid_t pid = -1;
  ControlSocket socket{-1};
  int log_fd = -1;  // the reading end of its standard error
  std::string log_rest, last_line, failure;
  json hello;
  bool up = false, gone = false;
  Clock::time_point heard = Clock::now();
  int status = 0;
};

class Supervisor {
 public:
  Supervisor(const Config& config, RunFolder& folder, const Restore& begin, bool quiet)
      : config_(config), folder_(folder), begin_(begin), progress_(config, quiet) {}
  ~Supervisor() { end_all(); }
  int run();

 private:
  void start(std::uint32_t node);
  void look(int milliseconds);
  void hear(Child& child);
  void read_log(Child& child);
  void reap(Child& child);
  void wait_until(const char* what, bool (*ready)(const Child&));
  void introduce();
  void report(const std::string& kind, const std::string& text);
  void end_all();
  [[noreturn]] void fail(const Child& child);

  const Config& config_;
  RunFolder& folder_;
  Restore begin_;
  Progress progress_;
  std::vector<Child> children_;
  std::string doing_ = "starting";
  bool finished_ = false;
};

void Supervisor::start(std::uint32_t node) {
  auto [socket, child_fd] = ControlSocket::make_pair();
  std::array<int, 2> log{};
  if (pipe2(log.data(), O_CLOEXEC) != 0) throw Error("can't make a pipe for node {}; too many open files?", node);
  const std::string fd = std::to_string(child_fd), self = std::filesystem::read_symlink("/proc/self/exe").string();
  const pid_t pid = fork();
  if (pid < 0) throw Error("can't start node {}: the process limit is reached", node);
  if (pid == 0) {
    dup2(log[1], STDERR_FILENO);
    dup2(log[1], STDOUT_FILENO);
    execl(self.c_str(), "troupe", "node", "--socket", fd.c_str(), nullptr);
    execl("/proc/self/exe", "troupe", "node", "--socket", fd.c_str(), nullptr);  // the file was replaced meanwhile
    _exit(127);
  }
  close(child_fd);
  close(log[1]);
  fcntl(log[0], F_SETFL, O_NONBLOCK);
  Child child;
  child.node = node;
  child.pid = pid;
  child.socket = std::move(socket);
  child.log_fd = log[0];
  children_.push_back(std::move(child));
  children_.back().socket.send(json{
      {"kind", "start"},
      {"config", config_to_toml(config_)},
      {"node", node},
      {"incarnation", 1},
      {"mode", 0},
      {"run_folder",
       folder_.path()}}.dump());
}

// The node's log goes to its file; what is worth a person's eye comes through with the node's name.
void Supervisor::read_log(Child& child) {
  std::array<char, 4096> bytes{};
  for (;;) {
    const ssize_t got = read(child.log_fd, bytes.data(), bytes.size());
    if (got <= 0) return;
    child.log_rest.append(bytes.data(), static_cast<std::size_t>(got));
    for (std::size_t end = child.log_rest.find('\n'); end != std::string::npos; end = child.log_rest.find('\n')) {
      const std::string line = child.log_rest.substr(0, end);
      child.log_rest.erase(0, end + 1);
      std::FILE* file = std::fopen(fmt::format("{}/logs/node-{}.log", folder_.path(), child.node).c_str(), "a");
      if (file != nullptr) {
        std::fprintf(file, "%s\n", line.c_str());
        std::fclose(file);
      }
      child.last_line = line;
      const bool quiet = line.find(" I node-") != std::string::npos || line.find(" D node-") != std::string::npos;
      if (!quiet) std::fprintf(stderr, "[node %u] %s\n", child.node, line.c_str());
    }
  }
}

void Supervisor::report(const std::string& kind, const std::string& text) {
  folder_.append_metrics(text);
  const json parsed = json::parse(text);
  progress_.show(parsed);
  if (kind == "step") doing_ = fmt::format("training step {}", parsed.at("step").get<std::int64_t>() + 1);
  if (kind == "evaluation") doing_ = "evaluating";
  if (kind == "problem") throw Error("{}", parsed.at("sentence").get<std::string>());
  if (kind == "finished") finished_ = true;
}

void Supervisor::hear(Child& child) {
  const bool open = child.socket.read();
  child.heard = Clock::now();
  while (auto line = child.socket.next()) {
    const json message = json::parse(*line);
    const std::string kind = message.at("kind");
    if (kind == "hello") child.hello = message;
    if (kind == "up") child.up = true;
    if (kind == "failed") child.failure = message.at("sentence");
    if (kind == "report") report(message.at("report"), message.at("json"));
  }
  if (!open) child.gone = true;
}

void Supervisor::look(int milliseconds) {
  std::vector<pollfd> fds;
  for (const Child& c : children_) {
    fds.push_back(
        {c.gone ? -1 : c.socket.fd(), static_cast<short>(POLLIN | (c.socket.wants_write() ? POLLOUT : 0)), 0});
    fds.push_back({c.log_fd, POLLIN, 0});
  }
  poll(fds.data(), fds.size(), milliseconds);
  for (std::size_t i = 0; i < children_.size(); ++i) {
    if (fds[2 * i + 1].revents != 0) read_log(children_[i]);
    if ((fds[2 * i].revents & POLLOUT) != 0) children_[i].socket.flush();
    if ((fds[2 * i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) hear(children_[i]);
  }
  const auto limit = std::chrono::milliseconds(config_.limits.silence_ms);
  for (Child& c : children_) {
    if (c.up && !c.gone && Clock::now() - c.heard > limit)
      c.failure =
          fmt::format("silent for {} ms (limits.silence_ms): stopped, or its machine is", config_.limits.silence_ms);
    if ((c.gone || !c.failure.empty()) && !finished_) fail(c);
  }
}

void Supervisor::reap(Child& child) {
  if (child.pid > 0 && waitpid(child.pid, &child.status, 0) == child.pid) child.pid = -1;
}

void Supervisor::fail(const Child& lost) {
  Child& child = children_[lost.node];
  read_log(child);
  kill(child.pid, SIGKILL);  // it said goodbye on its socket: nothing of it may stay
  reap(child);
  std::string how = child.failure;
  if (how.empty() && WIFSIGNALED(child.status))
    how = fmt::format("killed by signal {} ({})", WTERMSIG(child.status), strsignal(WTERMSIG(child.status)));
  if (how.empty()) how = fmt::format("ended with code {}", WIFEXITED(child.status) ? WEXITSTATUS(child.status) : -1);
  throw Error("node {} (process of {}) is gone while {}: {}; its log is {}/logs/node-{}.log; continue with: {}",
              child.node, folder_.path(), doing_, how, folder_.path(), child.node, resume_command(folder_.path()));
}

void Supervisor::wait_until(const char* what, bool (*ready)(const Child&)) {
  const auto deadline = Clock::now() + std::chrono::seconds(config_.limits.start_seconds);
  for (const Child& c : children_) {
    while (!ready(c)) {
      if (Clock::now() > deadline)
        throw Error("node {} did not {} within {} s (limits.start_seconds); its log is {}/logs/node-{}.log", c.node,
                    what, config_.limits.start_seconds, folder_.path(), c.node);
      if (interrupts > 0) throw Error("interrupted while the nodes were starting");
      look(50);
    }
  }
}

// All nodes must be the same program on the same kind of machine, about to compute the same numbers.
void Supervisor::introduce() {
  wait_until("start", [](const Child& c) { return !c.hello.is_null(); });
  json peers = json::array();
  for (const Child& c : children_) {
    for (const char* key : {"build", "machine", "digest"}) {
      if (c.hello.at(key) != children_[0].hello.at(key))
        throw Error(
            "node {} and node 0 differ in {}: {} and {}; all nodes must run the same build on the same kind of machine",
            c.node, key, c.hello.at(key).dump(), children_[0].hello.at(key).dump());
    }
    peers.push_back({{"node", c.node}, {"incarnation", 1}, {"address", c.hello.at("address")}});
  }
  for (Child& c : children_) c.socket.send(json{{"kind", "peers"}, {"peers", peers}}.dump());
  wait_until("connect", [](const Child& c) { return c.up; });
  doing_ = "loading";
  for (Child& c : children_)
    c.socket.send(json{{"kind", "restore"},
                       {"version", begin_.version},
                       {"attempt", 0},
                       {"path", begin_.path},
                       {"weights_only", begin_.weights_only}}
                      .dump());
}

int Supervisor::run() {
  struct sigaction action {};
  action.sa_handler = count_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  children_.reserve(static_cast<std::size_t>(config_.layout.nodes));
  for (int n = 0; n < config_.layout.nodes; ++n) start(static_cast<std::uint32_t>(n));
  introduce();
  int seen = 0;
  while (!finished_) {
    look(100);
    if (interrupts == seen) continue;
    seen = interrupts;
    if (seen > 1) throw Error("interrupted twice: stopped at once; continue with: {}", resume_command(folder_.path()));
    std::fprintf(stderr, "\ninterrupted: finishing this step and saving (once more to stop at once)\n");
    children_[0].socket.send(json{{"kind", "stop"}, {"reason", "interrupted"}}.dump());
  }
  end_all();
  if (seen == 0)
    progress_.summary(folder_.path());
  else
    std::fprintf(stderr, "saved; continue with: %s\n", resume_command(folder_.path()).c_str());
  return seen == 0 ? 0 : 130;
}

// Asks all to end, waits a little, and makes sure.
void Supervisor::end_all() {
  for (Child& c : children_)
    if (!c.gone) c.socket.send(json{{"kind", "end"}}.dump());
  const auto deadline = Clock::now() + std::chrono::seconds(finished_ ? 5 : 1);
  for (Child& c : children_) {
    while (c.pid > 0 && Clock::now() < deadline) {
      if (waitpid(c.pid, &c.status, WNOHANG) == c.pid)
        c.pid = -1;
      else
        usleep(2000);
    }
    if (c.pid > 0) {
      kill(c.pid, SIGKILL);
      reap(c);
    }
    if (c.log_fd >= 0) {
      read_log(c);
      close(c.log_fd);
      c.log_fd = -1;
    }
  }
}

}  // namespace

int train_in_processes(const Config& config, RunFolder& folder, const Restore& begin, bool quiet) {
  return Supervisor(config, folder, begin, quiet).run();
}

std::string to_hex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

}  // namespace troupe
