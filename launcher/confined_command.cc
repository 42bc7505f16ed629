// In namespaces a command is the child of process 1 there, the keeper, whose end is the end of every process in them.
// Without, it is the judge's child; what it left behind is found among the judge's children, and killed one by one.
#include "launcher/confined_command.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/securebits.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "actors/tasks/verify.h"
#include "kernels/base/error.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

constexpr int kNamespaces = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC;
constexpr unsigned kFilesAreOpen = 1, kProcessesAreSeen = 2;  // what confine() could not do

// fork() into these namespaces; 0: into none.
pid_t fork_into(int namespaces) {
  return static_cast<pid_t>(::syscall(SYS_clone, namespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
}

bool write_file(const char* path, const std::string& text) {
  const int file = ::open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool done = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(file);
  return done;
}

bool set_attributes(const char* path, unsigned flags, std::uint64_t set, std::uint64_t clear) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  return ::mount_setattr(AT_FDCWD, path, flags, &attributes, sizeof(attributes)) == 0;
}

void set_limit(int what, std::uint64_t soft, std::uint64_t hard) {
  const rlimit limit{.rlim_cur = soft, .rlim_max = hard};
  ::setrlimit(static_cast<__rlimit_resource>(what), &limit);
}

// Processes and threads of this user now, on the whole machine.
std::uint64_t own_processes() {
  std::uint64_t count = 0;
  std::error_code failed;
  for (fs::directory_iterator at("/proc", failed), end; !failed && at != end; at.increment(failed)) {
    struct stat status {};
    const std::string path = at->path().string();
    if (path.find_first_not_of("0123456789", 6) != std::string::npos) continue;
    if (::stat(path.c_str(), &status) != 0 || status.st_uid != ::getuid()) continue;
    std::error_code gone;
    for (fs::directory_iterator task(path + "/task", gone), last; !gone && task != last; task.increment(gone)) ++count;
  }
  return count;
}

// All that has come to this process as its child, until there is none: the children of who is killed come next.
void end_stragglers() {
  const std::string children = fmt::format("/proc/self/task/{}/children", ::getpid());
  while (true) {
    std::ifstream list(children);
    for (pid_t pid = 0; list >> pid;) ::kill(pid, SIGKILL);
    const pid_t ended = ::waitpid(-1, nullptr, WNOHANG);
    if (ended < 0 && errno == ECHILD) return;
    if (ended == 0) ::usleep(500);
  }
}

int code_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

// Reads what is there; false at the end of it.
bool read_some(int from, std::string& output, std::size_t most) {
  std::array<char, 16384> bytes{};
  while (output.size() <= most) {
    const ssize_t got = ::read(from, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 && errno == EAGAIN;
    output.append(bytes.data(), static_cast<std::size_t>(got));
  }
  return true;
}

}  // namespace

struct ConfinedCommand::Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("can't make a pipe for a command: {}", std::strerror(errno));
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() { close_read(), close_write(); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_read() { close_end(read_end); }
  void close_write() { close_end(write_end); }

 private:
  static void close_end(int& end) {
    if (end >= 0) ::close(std::exchange(end, -1));
  }
};

ConfinedCommand::ConfinedCommand(const JudgeConfig& judge, std::string folder)
    : judge_(judge), folder_(std::move(folder)), user_(::geteuid()), group_(::getegid()) {
  const char* path = std::getenv("PATH");
  environment_ = std::string("PATH=") + (path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
}

std::vector<std::string> ConfinedCommand::probe() {
  const pid_t pid = fork_into(kNamespaces);
  if (pid == 0) ::_exit(static_cast<int>(confine()));
  int status = 0;
  has_namespaces_ = pid > 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status);
  if (!has_namespaces_) {
    return {fmt::format("commands can use the network and see other processes: the kernel refuses namespaces ({})",
                        pid < 0 ? std::strerror(errno) : "their first process was killed")};
  }
  std::vector<std::string> notes;
  const auto missing = static_cast<unsigned>(WEXITSTATUS(status));
  if ((missing & kFilesAreOpen) != 0)
    notes.emplace_back("commands can write wherever the judge's user may: the kernel refuses to mount");
  if ((missing & kProcessesAreSeen) != 0)
    notes.emplace_back("commands can see other processes: the kernel refuses to mount /proc anew");
  return notes;
}

// In fresh namespaces: this user keeps his number, files become read-only but for an empty folder in memory, and /proc
// shows the processes in here alone. Tells what it could not do.
unsigned ConfinedCommand::confine() const {
  unsigned missing = 0;
  write_file("/proc/self/setgroups", "deny");
  write_file("/proc/self/uid_map", fmt::format("{0} {0} 1", user_));
  write_file("/proc/self/gid_map", fmt::format("{0} {0} 1", group_));
  const std::string room = fmt::format("size={}k,nr_inodes=4096,mode=0700", std::max(4, judge_.file_mib * 1024));
  const bool is_private = ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  const bool is_own =
      is_private && ::mount("command", folder_.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, room.c_str()) == 0;
  if (!is_private || ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    missing |= kProcessesAreSeen;
  if (!is_own || !set_attributes("/", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0) ||
      !set_attributes(folder_.c_str(), 0, 0, MOUNT_ATTR_RDONLY))
    missing |= kFilesAreOpen;
  return missing;
}

void ConfinedCommand::limit() const {
  const auto mib = [](int count) { return static_cast<std::uint64_t>(count) << 20; };
  const auto cpu = static_cast<std::uint64_t>(judge_.cpu_seconds);
  const auto processes = static_cast<std::uint64_t>(judge_.processes_max);
  set_limit(RLIMIT_CORE, 0, 0);
  set_limit(RLIMIT_CPU, cpu, cpu + 1);  // who ignores the first signal gets one that can't be
  set_limit(RLIMIT_AS, mib(judge_.memory_mib), mib(judge_.memory_mib));
  set_limit(RLIMIT_FSIZE, mib(judge_.file_mib), mib(judge_.file_mib));
  // The kernel counts for each user: in a user namespace from nothing (the keeper is one), else on the whole machine.
  const std::uint64_t others = has_namespaces_ ? 1 : own_processes();
  set_limit(RLIMIT_NPROC, processes + others, processes + others);
}

// REQUIRES: standard input, output and error are the command's.
void ConfinedCommand::become_command() const {
  ::setsid();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::chdir(folder_.c_str()) != 0) ::_exit(126);
  limit();
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED);  // root in the namespace is nobody there either
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::execle("/bin/sh", "sh", "-c", judge_.command.c_str(), nullptr,
           std::array<const char*, 2>{environment_.c_str(), nullptr}.data());
  ::_exit(127);
}

// The child of the judge: the command itself, or process 1 of its namespaces.
void ConfinedCommand::keep(int in, int out) const {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nowhere < 0 || ::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(nowhere, 2) < 0) ::_exit(126);
  ::close_range(3, ~0U, 0);
  if (!has_namespaces_) become_command();
  confine();
  const pid_t command = fork_into(0);
  if (command < 0) ::_exit(126);
  if (command == 0) become_command();
  ::close(0);
  ::close(1);
  int status = 0;
  while (true) {
    const pid_t ended = ::waitpid(-1, &status, 0);
    if (ended == command) ::_exit(code_of(status));
    if (ended < 0 && errno != EINTR) ::_exit(126);
  }
}

// Gives the command its request and takes what it writes, until it has ended or has written too much.
void ConfinedCommand::converse(int process, Pipe& in, Pipe& out, const std::string& line, Ended& ended) const {
  const std::size_t output_max = static_cast<std::size_t>(judge_.output_kib) << 10;
  std::size_t sent = 0;
  for (bool is_open = true, is_over = false; !is_over && !ended.wrote_too_much;) {
    std::array<pollfd, 3> watched{{{.fd = process, .events = POLLIN, .revents = 0},
                                   {.fd = is_open ? out.read_end : -1, .events = POLLIN, .revents = 0},
                                   {.fd = in.write_end, .events = POLLOUT, .revents = 0}}};
    if (::poll(watched.data(), watched.size(), -1) < 0) continue;
    is_over = watched[0].revents != 0;  // what it wrote before is still there
    if (is_open) is_open = read_some(out.read_end, ended.output, output_max);
    ended.wrote_too_much = ended.output.size() > output_max;
    if (watched[2].revents == 0) continue;
    const ssize_t written = ::write(in.write_end, line.data() + sent, line.size() - sent);
    if (written > 0) sent += static_cast<std::size_t>(written);
    if (sent == line.size() || (written < 0 && errno != EAGAIN && errno != EINTR)) in.close_write();
  }
}

ConfinedCommand::Ended ConfinedCommand::run(const std::string& request) {
  Pipe in, out;
  std::error_code failed;
  for (const auto& left : fs::directory_iterator(folder_, failed)) fs::remove_all(left.path(), failed);
  const pid_t pid = fork_into(has_namespaces_ ? kNamespaces : 0);
  if (pid < 0) throw Error("can't start a command: {}", std::strerror(errno));
  if (pid == 0) keep(in.read_end, out.write_end);
  in.close_read();
  out.close_write();
  ::fcntl(in.write_end, F_SETFL, O_NONBLOCK);
  ::fcntl(out.read_end, F_SETFL, O_NONBLOCK);
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (process < 0) throw Error("can't watch a command: {}", std::strerror(errno));
  Ended ended;
  converse(process, in, out, request + "\n", ended);
  ::close(process);
  if (ended.wrote_too_much) ::kill(pid, SIGKILL);
  rusage usage{};
  int status = 0;
  while (::wait4(pid, &status, 0, &usage) < 0 && errno == EINTR) continue;
  end_stragglers();
  ended.code = code_of(status);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  ended.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  return ended;
}

// Why a command that has ended earns nothing; "" where its output decides.
std::string ConfinedCommand::failure(const Ended& ended) const {
  if (ended.wrote_too_much) return fmt::format("more than {} KiB of output (judge.output_kib)", judge_.output_kib);
  if (ended.code == 0) return "";
  const int number = ended.code - 128;
  // The kernel counts whole ticks for the limit, and the usage exactly: on a busy machine the two differ by a lot.
  if (number == SIGXCPU || (number == SIGKILL && ended.cpu_seconds >= judge_.cpu_seconds * 0.5))
    return fmt::format("over its CPU limit of {} s", judge_.cpu_seconds);
  if (ended.code == 126 || ended.code == 127)
    return fmt::format("code {}: the command can't be run; may every user read it?", ended.code);
  if (number > 0 && number < NSIG) return fmt::format("killed by signal {} ({})", number, ::strsignal(number));
  return fmt::format("ended with code {}", ended.code);
}

std::string ConfinedCommand::take_note() { return std::exchange(note_, ""); }

std::string ConfinedCommand::verdict_on(const std::string& request) {
  const Ended ended = run(request);
  Score score;
  std::string problem = failure(ended);
  if (problem.empty()) {
    std::string line = ended.output;
    if (line.ends_with('\n')) line.pop_back();
    const std::string why = line.find('\n') != std::string::npos ? "more than one line" : read_verdict(line, score);
    if (!why.empty()) problem = "the command's output is no verdict: " + why;
  }
  const bool is_its_own = !problem.empty() && !ended.wrote_too_much && ended.code < 128;
  if (is_its_own && !std::exchange(has_noted_, true))
    note_ = fmt::format("judge.command failed, which earns 0: {} (told once; the others are in the answers' details)",
                        problem);
  return verdict_line(problem.empty() ? score : Score{.detail = problem});
}

}  // namespace troupe
