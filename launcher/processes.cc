#include "launcher/processes.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "actors/rules/recovery.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/inspect/run_token.h"
#include "launcher/interrupts.h"
#include "launcher/loop.h"
#include "launcher/program.h"
#include "launcher/progress.h"
#include "launcher/stall.h"
#include "launcher/train.h"
#include "messages/control_socket.h"

namespace troupe {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kRolloutsKept = 1024;  // more than a loss takes a run back
constexpr int kGraceMs = 1000;               // for a process elsewhere, to notice and end

struct Child {
  std::uint32_t node = 0, incarnation = 0;
  pid_t pid = -1;
  ControlSocket socket{-1};
  int log_fd = -1;    // the reading end of its standard error
  int leash_fd = -1;  // of a process elsewhere: the writing end of its standard input
  std::string log_rest, last_line, failure;
  json hello;
  bool up = false, gone = false;
  bool introduced = false;                                   // the others were told of this incarnation
  std::uint32_t met = 0;                                     // the last introduction that it has followed
  std::string why_gone;                                      // what the launcher holds against it
  std::set<std::pair<std::uint32_t, std::uint32_t>> silent;  // peers, with incarnation, that it hears nothing from
  Clock::time_point heard = Clock::now();
  int status = 0;
};

// The launcher's own process: it starts the nodes, hears of what they do, and replaces the one that is lost. It takes no
// part in the work, so that its memory of the run is no more than what it has been told.
class Supervisor {
 public:
  Supervisor(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill, bool quiet, Launch* launch)
      : config_(config), folder_(folder), begin_(begin), bill_(bill), progress_(config, quiet), launch_(launch) {}
  ~Supervisor() { end_all(); }
  int run();

 private:
  void start(Child& child);
  void start_here(Child& child);
  void start_there(Child& child);
  void say_start(Child& child);
  void welcome();
  void beat();
  void let_go(Child& child);
  std::string name_of(const Child& child) const;
  void look(int milliseconds);
  void hear(Child& child);
  void take_hello(Child& child, const json& hello);
  std::string why_different(const Child& a, const Child& b) const;
  void read_log(Child& child);
  void reap(Child& child);
  bool wait_until(const char* what, const std::function<bool(const Child&)>& ready);
  void suspect();
  static void give_up(Child& child, const std::string& why);
  void bury(Child& child);
  void mourn(Child& child);
  void gather();
  void introduce();
  void recover();
  void report(const std::string& kind, const std::string& text);
  static bool ends_until(Child& child, Clock::time_point deadline);
  void end_all();
  void obey_interrupts();
  std::string how_lost(const Child& child) const;
  bool any_lost() const;
  [[noreturn]] void fail(const Child& child);

  const Config& config_;
  RunFolder& folder_;
  Recover begin_;
  RunBill& bill_;
  Progress progress_;
  Launch* launch_;  // null: all run here
  Clock::time_point beat_ = Clock::now();
  Stalls stalls_{config_, folder_};
  std::vector<Child> children_;
  std::string doing_ = "starting";
  bool finished_ = false, started_ = false;
  int seen_ = 0;      // interrupts
  int restarts_ = 0;  // since the last committed step
  std::uint32_t introductions_ = 0;
  Clock::time_point apart_since_ = Clock::now();  // since then some don't hear each other
  std::int64_t reported_step_ = -1, evaluated_version_ = -1, answers_version_ = -1;
  std::set<std::int64_t> reported_rollouts_;
  bool ready_ = false, answered_ = false;
};

void Supervisor::start(Child& child) {
  const std::uint32_t node = child.node, incarnation = child.incarnation + 1;
  child = Child{};
  child.node = node;
  child.incarnation = incarnation;
  if (launch_ != nullptr) return start_there(child);
  start_here(child);
  say_start(child);
}

void Supervisor::start_here(Child& child) {
  auto [socket, child_fd] = ControlSocket::make_pair();
  std::array<int, 2> log{};
  if (pipe2(log.data(), O_CLOEXEC) != 0) throw Error("can't make a pipe for node {}; too many open files?", child.node);
  const std::string fd = std::to_string(child_fd), self = std::filesystem::read_symlink("/proc/self/exe").string();
  const pid_t pid = fork();
  if (pid < 0) throw Error("can't start node {}: the process limit is reached", child.node);
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
  child.pid = pid;
  child.socket = std::move(socket);
  child.log_fd = log[0];
}

void Supervisor::start_there(Child& child) {
  const Started started = launch_->start(child.node, child.incarnation);
  child.pid = started.pid;
  child.log_fd = started.log_fd;
  child.leash_fd = started.leash_fd;
}

void Supervisor::say_start(Child& child) {
  json start{{"kind", "start"},
             {"config", config_to_toml(config_)},
             {"node", child.node},
             {"incarnation", child.incarnation},
             {"mode", 0},
             {"run_folder", std::filesystem::absolute(folder_.path()).string()},
             {"together", launch_ == nullptr ? config_.layout.nodes : launch_->beside(child.node)}};
  if (launch_ == nullptr) start["token"] = run_token(folder_.path());  // elsewhere it is known, and never said
  child.socket.send(start.dump());
}

// Who has come from elsewhere.
void Supervisor::welcome() {
  if (launch_ == nullptr) return;
  for (Rendezvous::Joined& joined : launch_->rendezvous().look())
    for (Child& child : children_) {
      if (child.node != joined.node || child.incarnation != joined.incarnation || child.gone) continue;
      child.socket = std::move(joined.socket);
      child.heard = Clock::now();
      say_start(child);
    }
}

// A sign of life to those who would end themselves without it.
void Supervisor::beat() {
  const auto now = Clock::now();
  if (launch_ == nullptr || now - beat_ < std::chrono::milliseconds(config_.limits.heartbeat_ms)) return;
  beat_ = now;
  for (Child& child : children_)
    if (!child.gone) child.socket.send(json{{"kind", "alive"}}.dump());
}

std::string Supervisor::name_of(const Child& child) const {
  return launch_ == nullptr ? fmt::format("node {}", child.node)
                            : fmt::format("node {} ({})", child.node, launch_->where(child.node));
}

// The node's log goes to its file; what is worth a person's eye comes through with the node's name.
void Supervisor::read_log(Child& child) {
  std::array<char, 4096> bytes{};
  while (child.log_fd >= 0) {
    const ssize_t got = read(child.log_fd, bytes.data(), bytes.size());
    if (got == 0) {
      close(std::exchange(child.log_fd, -1));
      if (child.leash_fd >= 0 && child.socket.fd() < 0) child.gone = true;  // it never came
    }
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

// A step that is done again after a loss says the same again: it is told once.
void Supervisor::report(const std::string& kind, const std::string& text) {
  const json parsed = json::parse(text);
  if (kind == "step") {
    const std::int64_t step = parsed.at("step");
    if (step <= reported_step_) return;
    reported_step_ = step;
    restarts_ = 0;
    doing_ = fmt::format("training step {}", step + 2);
  }
  if (kind == "evaluation") {
    doing_ = "evaluating";
    if (parsed.at("version").get<std::int64_t>() <= evaluated_version_) return;
    evaluated_version_ = parsed.at("version");
  }
  if (kind == "rollout") {
    if (!reported_rollouts_.insert(parsed.at("rollout").get<std::int64_t>()).second) return;
    if (reported_rollouts_.size() > kRolloutsKept) reported_rollouts_.erase(reported_rollouts_.begin());
  }
  if (kind == "answers") {
    if (parsed.at("version").get<std::int64_t>() <= answers_version_) return;
    answers_version_ = parsed.at("version");
  }
  if (kind == "exact_match" && std::exchange(answered_, true)) return;
  if (kind == "problem") throw Error("{}", parsed.at("sentence").get<std::string>());
  if (kind == "ready") bill_.ready(parsed.at("version"));
  if (kind == "ready" && std::exchange(ready_, true)) return;
  for (const json& line : bill_.hear(parsed, monotonic_us())) {
    folder_.append_metrics(line.dump());
    progress_.show(line);
    look_at_alarm(config_, folder_, line);
  }
  finished_ = finished_ || kind == "finished";
}

// Empty: both compute the same.
std::string Supervisor::why_different(const Child& a, const Child& b) const {
  for (const char* key : {"build", "machine", "digest"})
    if (a.hello.at(key) != b.hello.at(key))
      return fmt::format(
          "{} and {} differ in {}: {} and {}; all nodes must run the same build on the same kind of machine",
          name_of(a), name_of(b), key, a.hello.at(key).dump(), b.hello.at(key).dump());
  return "";
}

// A run that goes on isn't ended by somebody who doesn't fit: only this process is.
void Supervisor::take_hello(Child& child, const json& hello) {
  child.hello = hello;
  if (!started_) return;
  for (const Child& other : children_)
    if (other.node != child.node && !other.gone && !other.hello.is_null())
      if (const std::string problem = why_different(child, other); !problem.empty()) return give_up(child, problem);
}

void Supervisor::hear(Child& child) {
  const bool open = child.socket.read();
  child.heard = Clock::now();
  while (auto line = child.socket.next()) {
    const json message = json::parse(*line);
    const std::string kind = message.at("kind");
    if (kind == "hello") take_hello(child, message);
    if (kind == "up") child.up = true, child.met = message.at("introduction");
    if (kind == "failed") child.failure = message.at("sentence");
    if (kind == "alive") child.silent.clear();
    if (kind == "silent") child.silent = message.at("peers").get<std::set<std::pair<std::uint32_t, std::uint32_t>>>();
    if (message.contains("bill")) bill_.tell(child.node, node_bill_from(message.at("bill")));
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
  if (launch_ != nullptr) launch_->rendezvous().add_fds(fds);
  poll(fds.data(), fds.size(), milliseconds);
  for (std::size_t i = 0; i < children_.size(); ++i) {
    if (fds[2 * i + 1].revents != 0) read_log(children_[i]);
    if ((fds[2 * i].revents & POLLOUT) != 0) children_[i].socket.flush();
    if ((fds[2 * i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) hear(children_[i]);
  }
  welcome();
  beat();
  suspect();
  stalls_.look();
  for (const Child& c : children_)
    if (!c.failure.empty() && !finished_) fail(c);  // its own words: a new process would say the same
}

// Who is silent is lost, and who is cut off from the others.
void Supervisor::suspect() {
  const auto now = Clock::now();
  const auto limit = std::chrono::milliseconds(config_.limits.silence_ms);
  std::size_t living = 0;
  std::set<std::pair<std::uint32_t, std::uint32_t>> apart;
  for (Child& c : children_) {
    if (c.up && !c.gone && now - c.heard > limit)
      give_up(c, fmt::format("silent for {} ms (limits.silence_ms): stopped, or its machine is",
                             config_.limits.silence_ms));
    living += c.gone ? 0 : 1;
    for (const auto& [peer, incarnation] : c.silent)
      if (!c.gone && peer < children_.size() && !children_[peer].gone && children_[peer].incarnation == incarnation)
        apart.emplace(c.node, peer);
  }
  if (apart.empty()) apart_since_ = now;
  const auto lost = cut_off(apart, living, now - apart_since_ > limit);
  if (!lost) return;
  give_up(children_[*lost], fmt::format("another node has heard nothing from it for {} ms (twice limits.silence_ms)",
                                        2 * config_.limits.silence_ms));
  for (Child& c : children_) c.silent.clear();
}

void Supervisor::give_up(Child& child, const std::string& why) {
  child.gone = true;
  child.why_gone = why;
}

void Supervisor::reap(Child& child) {
  if (child.pid > 0 && waitpid(child.pid, &child.status, 0) == child.pid) child.pid = -1;
}

// The command of a process elsewhere has ended, and with a code of the process's own: ssh's is 255.
bool proves_end(int status) { return WIFEXITED(status) && WEXITSTATUS(status) != 255; }

// A process elsewhere can't be killed from here: it is told to end by all ways there are. It is certain to have ended when
// its socket was closed there, or its command tells its code, or when it must have missed the launcher for too long. That
// a command ends says nothing by itself: its connection may have broken.
void Supervisor::let_go(Child& child) {
  if (child.leash_fd < 0) return;
  close(std::exchange(child.leash_fd, -1));
  const bool ended = child.socket.ended() || child.socket.fd() < 0;  // or it never came
  child.socket = ControlSocket(-1);
  const auto deadline = Clock::now() + std::chrono::milliseconds(config_.limits.silence_ms + kGraceMs);
  while (Clock::now() < deadline) {
    if (child.pid > 0 && waitpid(child.pid, &child.status, WNOHANG) == child.pid) child.pid = -1;
    if (child.pid < 0 && (ended || proves_end(child.status))) return;
    look(20);
  }
}

std::string Supervisor::how_lost(const Child& child) const {
  if (!child.failure.empty()) return child.failure;
  if (!child.why_gone.empty()) return child.why_gone;
  if (launch_ != nullptr)
    return child.last_line.empty() ? "its connection ended" : "it ended; its last words: " + child.last_line;
  if (WIFSIGNALED(child.status))
    return fmt::format("killed by signal {} ({})", WTERMSIG(child.status), strsignal(WTERMSIG(child.status)));
  return fmt::format("ended with code {}", WIFEXITED(child.status) ? WEXITSTATUS(child.status) : -1);
}

void Supervisor::fail(const Child& lost) {
  Child& child = children_[lost.node];
  bury(child);
  throw Error("{} (process of {}) is gone while {}: {}; its log is {}/logs/node-{}.log; continue with: {}",
              name_of(child), folder_.path(), doing_, how_lost(child), folder_.path(), child.node,
              resume_command(folder_.path()));
}

// Nothing of it may stay: a process that wakes later would write where the new one writes.
void Supervisor::bury(Child& child) {
  let_go(child);
  read_log(child);
  if (child.pid > 0) kill(child.pid, SIGKILL);
  reap(child);
  if (child.log_fd >= 0) close(child.log_fd);
  child.log_fd = -1;
  child.gone = true;
}

bool Supervisor::any_lost() const {
  return std::any_of(children_.begin(), children_.end(), [](const Child& c) { return c.gone; });
}

// False: another was lost meanwhile.
bool Supervisor::wait_until(const char* what, const std::function<bool(const Child&)>& ready) {
  const auto deadline = Clock::now() + std::chrono::seconds(config_.limits.start_seconds);
  for (const Child& c : children_) {
    while (!ready(c)) {
      if (Clock::now() > deadline)
        throw Error("node {} did not {} within {} s (limits.start_seconds); its log is {}/logs/node-{}.log", c.node,
                    what, config_.limits.start_seconds, folder_.path(), c.node);
      look(50);
      obey_interrupts();
      if (any_lost()) return false;
    }
  }
  return true;
}

// A lost process is buried, and forgotten by the others; or the run ends here.
void Supervisor::mourn(Child& child) {
  if (!started_ || ++restarts_ > config_.recovery.restarts_max) fail(child);
  const bool never_came = launch_ != nullptr && child.hello.is_null();
  bury(child);
  if (never_came && !launch_->has_spare() && children_.size() > 1) throw HostLost{child.node};
  bill_.lost(child.node);
  const std::string name = name_of(child), how = how_lost(child);
  const bool moved = launch_ != nullptr && launch_->move(child.node);
  std::fprintf(stderr, "\n%s is lost while %s: %s; starting it again%s\n", name.c_str(), doing_.c_str(), how.c_str(),
               moved ? fmt::format(" on {}", launch_->where(child.node)).c_str() : "");
  for (Child& other : children_)
    if (!other.gone) other.socket.send(json{{"kind", "forget"}, {"node", child.node}}.dump());
}

// Starts who is missing, until all are there at once.
void Supervisor::gather() {
  do {
    for (Child& c : children_) {
      if (!c.gone) continue;
      if (c.incarnation > 0) mourn(c);
      start(c);
    }
  } while (!wait_until("start", [](const Child& c) { return !c.hello.is_null(); }));
  for (const Child& c : children_)
    if (const std::string problem = why_different(c, children_[0]); !problem.empty()) throw Error("{}", problem);
}

// Who is new learns of everybody; the others learn of who is new.
void Supervisor::introduce() {
  json all = json::array(), fresh = json::array();
  for (const Child& c : children_) {
    const json peer = {{"node", c.node}, {"incarnation", c.incarnation}, {"address", c.hello.at("address")}};
    all.push_back(peer);
    if (!c.introduced) fresh.push_back(peer);
  }
  ++introductions_;
  for (Child& c : children_) {
    c.socket.send(
        json{{"kind", "peers"}, {"introduction", introductions_}, {"peers", c.introduced ? fresh : all}}.dump());
    c.introduced = true;
  }
}

// Start and every recovery: all are there, all know each other, and only then the conductor brings them to one state: a
// node that has yet to follow the introduction would refuse what a new one says.
void Supervisor::recover() {
  do {
    gather();
    introduce();
  } while (!wait_until("connect", [this](const Child& c) { return c.met == introductions_; }));
  if (started_) {
    const std::uint32_t attempt = begin_.attempt + 1;
    begin_ = starting_point(config_, folder_.path(), true);
    begin_.attempt = attempt;
  }
  started_ = true;
  children_[0].socket.send(json{{"kind", "recover"},
                                {"version", begin_.version},
                                {"attempt", begin_.attempt},
                                {"path", begin_.path},
                                {"weights_only", begin_.weights_only},
                                {"allowance_us", bill_.allowance_us(monotonic_us())}}
                               .dump());
  if (seen_ > 0) children_[0].socket.send(json{{"kind", "stop"}, {"reason", "interrupted"}}.dump());
}

void Supervisor::obey_interrupts() {
  if (interrupts() == seen_) return;
  if (!started_) {
    std::fprintf(stderr, "\ninterrupted while the nodes were starting; continue with: %s\n",
                 resume_command(folder_.path()).c_str());
    throw Interrupted();
  }
  seen_ = interrupts();
  if (seen_ > 1) throw Error("interrupted twice: stopped at once; continue with: {}", resume_command(folder_.path()));
  std::fprintf(stderr, "\ninterrupted: finishing this step and saving (once more to stop at once)\n");
  children_[0].socket.send(json{{"kind", "stop"}, {"reason", "interrupted"}}.dump());
}

int Supervisor::run() {
  catch_interrupts();
  signal(SIGPIPE, SIG_IGN);
  children_.resize(static_cast<std::size_t>(config_.layout.nodes));
  for (std::size_t n = 0; n < children_.size(); ++n) {
    children_[n].node = static_cast<std::uint32_t>(n);
    children_[n].gone = true;  // not there yet
  }
  doing_ = "loading";
  while (!finished_) {
    if (any_lost()) recover();
    look(100);
    obey_interrupts();
  }
  end_all();
  for (Child& c : children_) hear(c);  // their last bill
  const json last = bill_.line(true, monotonic_us());
  folder_.append_metrics(last.dump());
  progress_.show(last);
  progress_.expect_saved(resume_command(folder_.path()));
  if (seen_ == 0)
    progress_.summary(folder_.path());
  else
    std::fprintf(stderr, "saved; continue with: %s\n", resume_command(folder_.path()).c_str());
  return seen_ == 0 ? 0 : kInterrupted;
}

// False: it lives on.
bool Supervisor::ends_until(Child& child, Clock::time_point deadline) {
  while (child.pid > 0 && Clock::now() < deadline) {
    if (waitpid(child.pid, &child.status, WNOHANG) == child.pid)
      child.pid = -1;
    else
      usleep(2000);
  }
  return child.pid <= 0;
}

// Asks all to end, waits a little, and makes sure.
void Supervisor::end_all() {
  for (Child& c : children_)
    if (!c.gone) c.socket.send(json{{"kind", "end"}}.dump());
  const auto deadline = Clock::now() + std::chrono::seconds(finished_ ? 5 : 1);
  for (Child& c : children_) {
    if (!ends_until(c, deadline) && c.leash_fd >= 0) {
      close(std::exchange(c.leash_fd, -1));
      ends_until(c, deadline + std::chrono::seconds(2));
    }
    if (c.pid > 0) {
      kill(c.pid, SIGKILL);
      reap(c);
    }
    if (c.leash_fd >= 0) close(std::exchange(c.leash_fd, -1));
    read_log(c);
    if (c.log_fd >= 0) close(std::exchange(c.log_fd, -1));
  }
}

}  // namespace

int train_in_processes(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill, bool quiet,
                       Launch* launch) {
  return Supervisor(config, folder, begin, bill, quiet, launch).run();
}

}  // namespace troupe
