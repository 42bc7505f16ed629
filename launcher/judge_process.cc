#include "launcher/judge_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

namespace troupe {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kLineMax = std::size_t{1} << 20;
constexpr int kEndMilliseconds = 200;  // between the end of a process's output and its own

void close_end(int& end) {
  if (end >= 0) ::close(std::exchange(end, -1));
}

// A process and all below it, as they stand now.
void kill_tree(pid_t root) {
  std::vector<pid_t> all = {root};
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", all[i]));
    for (pid_t child = 0; children >> child;) all.push_back(child);
  }
  ::kill(-root, SIGKILL);
  for (const pid_t pid : all) ::kill(pid, SIGKILL);
}

// In a process group of its own, with `in` and `out`, and with nothing of this process's signals.
int spawn(pid_t& pid, const std::string& program, int in, int out) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&how, &none);
  posix_spawnattr_setsigdefault(&how, &all);
  posix_spawnattr_setpgroup(&how, 0);
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const char* path = std::getenv("PATH");
  std::string environment = std::string("PATH=") + (path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  std::string name = "troupe", command = "judge";
  std::array<char*, 3> words{name.data(), command.data(), nullptr};
  std::array<char*, 2> variables{environment.data(), nullptr};
  const int failed = ::posix_spawn(&pid, program.c_str(), &files, &how, words.data(), variables.data());
  posix_spawnattr_destroy(&how);
  posix_spawn_file_actions_destroy(&files);
  return failed;
}

}  // namespace

std::string JudgeProcess::start(const std::string& program) {
  std::error_code failed;
  folder_ = (fs::temp_directory_path(failed) / "troupe-judge-XXXXXX").string();
  if (failed || ::mkdtemp(folder_.data()) == nullptr) {
    folder_.clear();
    return fmt::format("can't make a folder for it in the temporary folder: {}", std::strerror(errno));
  }
  std::array<int, 2> requests{-1, -1}, answers{-1, -1};
  int reason = ::pipe2(requests.data(), O_CLOEXEC) != 0 || ::pipe2(answers.data(), O_CLOEXEC) != 0 ? errno : 0;
  if (reason == 0) reason = spawn(pid_, program, requests[0], answers[1]);
  close_end(requests[0]);
  close_end(answers[1]);
  to_ = requests[1];
  from_ = answers[0];
  if (reason != 0) {
    pid_ = -1;
    end();
    return fmt::format("can't start {}: {}", program, std::strerror(reason));
  }
  ::fcntl(to_, F_SETFL, O_NONBLOCK);
  ::fcntl(from_, F_SETFL, O_NONBLOCK);
  return "";
}

void JudgeProcess::send(const std::string& line) {
  outgoing_ += line + "\n";
  flush();
}

// What can't be written because it is gone is not missed here: receive() tells its end.
void JudgeProcess::flush() {
  while (sent_ < outgoing_.size()) {
    const ssize_t written = ::write(to_, outgoing_.data() + sent_, outgoing_.size() - sent_);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return;
    if (written < 0) break;
    sent_ += static_cast<std::size_t>(written);
  }
  outgoing_.clear();
  sent_ = 0;
}

bool JudgeProcess::receive(std::vector<std::string>& lines) {
  std::array<char, 16384> bytes{};
  bool is_open = true;
  while (is_open) {
    const ssize_t got = ::read(from_, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    is_open = got > 0;
    if (is_open) incoming_.append(bytes.data(), static_cast<std::size_t>(got));
    for (std::size_t end = incoming_.find('\n'); end != std::string::npos; end = incoming_.find('\n')) {
      lines.push_back(incoming_.substr(0, end));
      incoming_.erase(0, end + 1);
    }
    if (incoming_.size() > kLineMax) return false;
  }
  return is_open;
}

std::string JudgeProcess::why_ended() {
  for (int waited = 0;; ++waited) {
    int status = 0;
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended == pid_) {
      pid_ = -1;
      if (WIFSIGNALED(status))
        return fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
      return fmt::format("ended with code {}", WEXITSTATUS(status));
    }
    if (ended < 0 || waited >= kEndMilliseconds) return "";
    ::usleep(1000);
  }
}

std::string JudgeProcess::end() {
  std::string why;
  if (pid_ > 0) {
    std::array<char, 1> byte{};
    const bool is_silent = from_ >= 0 && ::read(from_, byte.data(), 1) == 0;
    if (is_silent) why = why_ended();
  }
  if (pid_ > 0) {
    kill_tree(pid_);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
    pid_ = -1;
  }
  close_end(to_);
  close_end(from_);
  outgoing_.clear();
  incoming_.clear();
  sent_ = 0;
  std::error_code failed;
  if (!folder_.empty()) fs::remove_all(folder_, failed);
  folder_.clear();
  return why;
}

}  // namespace troupe
