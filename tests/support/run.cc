#include "tests/support/run.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/base/check.h"

namespace troupe::test {

namespace {

constexpr int kLookMs = 2;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// What is there to read; -1 instead of the descriptor at its end.
void drain(int& fd, std::string& text) {
  std::array<char, 4096> bytes{};
  while (fd >= 0) {
    const ssize_t got = ::read(fd, bytes.data(), bytes.size());
    if (got > 0) {
      text.append(bytes.data(), static_cast<std::size_t>(got));
      continue;
    }
    if (got < 0) return;
    ::close(fd);
    fd = -1;
  }
}

[[noreturn]] void become(const Arguments& arguments, int out, int err) {
  ::setpgid(0, 0);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  std::vector<char*> words;
  for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execv(words[0], words.data());
  ::_exit(127);
}

}  // namespace

Folder::Folder() : path_((std::filesystem::temp_directory_path() / "troupe-test-XXXXXX").string()) {
  CHECK(::mkdtemp(path_.data()) != nullptr, "no folder at {}", path_);
}

Folder::~Folder() {
  std::error_code failed;
  std::filesystem::remove_all(path_, failed);
}

Process::Process(const Arguments& arguments, int limit_ms) : deadline_ms_(now_ms() + limit_ms) {
  std::array<int, 2> out{}, err{};
  CHECK(::pipe2(out.data(), O_CLOEXEC) == 0 && ::pipe2(err.data(), O_CLOEXEC) == 0, "no pipes");
  pid_ = ::fork();
  CHECK(pid_ >= 0, "no process");
  if (pid_ == 0) become(arguments, out[1], err[1]);
  ::setpgid(pid_, pid_);  // both sides do: whoever comes first
  ::close(out[1]);
  ::close(err[1]);
  out_fd_ = out[0];
  err_fd_ = err[0];
  ::fcntl(out_fd_, F_SETFL, O_NONBLOCK);
  ::fcntl(err_fd_, F_SETFL, O_NONBLOCK);
}

Process::~Process() {
  signal_group(SIGKILL);
  if (!over_) ::waitpid(pid_, nullptr, 0);
  if (out_fd_ >= 0) ::close(out_fd_);
  if (err_fd_ >= 0) ::close(err_fd_);
}

void Process::signal_group(int signal) const { ::kill(-pid_, signal); }

void Process::reap() {
  int status = 0;
  if (over_ || ::waitpid(pid_, &status, WNOHANG) != pid_) return;
  over_ = true;
  if (WIFEXITED(status)) ended_.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) ended_.signal = WTERMSIG(status);
}

void Process::look(int milliseconds) {
  std::array<pollfd, 2> fds{{{out_fd_, POLLIN, 0}, {err_fd_, POLLIN, 0}}};
  ::poll(fds.data(), fds.size(), milliseconds);
  drain(out_fd_, ended_.out);
  drain(err_fd_, ended_.err);
  reap();
  if (now_ms() < deadline_ms_ || ended_.late) return;
  ended_.late = true;
  signal_group(SIGKILL);
}

bool Process::follow(const std::function<bool()>& happened) {
  for (;;) {
    if (happened()) {
      look(0);  // what it said before that is read
      return true;
    }
    if (over_ || ended_.late) return false;
    look(kLookMs);
  }
}

Ended Process::wait() {
  while (!over_) look(kLookMs);
  // Its children's ends of the pipes may stay open a moment longer.
  while ((out_fd_ >= 0 || err_fd_ >= 0) && !ended_.late) look(kLookMs);
  return ended_;
}

std::vector<pid_t> Process::members() const {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string id = entry.path().filename().string();
    if (id.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string text = read_file(entry.path() / "stat");  // "pid (name) state parent group ..."
    const std::size_t name_end = text.rfind(')');
    if (name_end == std::string::npos) continue;  // it has just ended
    std::istringstream rest(text.substr(name_end + 1));
    char state = 0;
    pid_t parent = 0, group = 0;
    rest >> state >> parent >> group;
    const bool dead = state == 'Z' || state == 'X';
    if (group == pid_ && !dead) found.push_back(std::stoi(id));
  }
  return found;
}

bool Process::all_gone(int milliseconds) const {
  const std::int64_t deadline = now_ms() + milliseconds;
  while (!members().empty()) {
    if (now_ms() > deadline) return false;
    ::poll(nullptr, 0, kLookMs);
  }
  return true;
}

Ended run(const Arguments& arguments, int kill_after_ms, int limit_ms) {
  Process process(arguments, limit_ms);
  if (kill_after_ms > 0) {
    const std::int64_t moment = now_ms() + kill_after_ms;
    process.follow([&] { return now_ms() >= moment; });
    process.signal_group(SIGKILL);
  }
  return process.wait();
}

Arguments troupe_command(const Arguments& arguments) {
  Arguments all{TROUPE_BINARY};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return all;
}

Ended troupe(const Arguments& arguments) { return run(troupe_command(arguments)); }

Arguments with_sets(Arguments before, const Arguments& sets) {
  for (const std::string& set : sets) {
    before.push_back("--set");
    before.push_back(set);
  }
  return before;
}

Arguments tiny_sets(const Arguments& more) {
  Arguments sets{"evaluate.exact_match_problems=0", "evaluate.every_steps=0", "data.arithmetic_digits=1",
                 "device.threads=1", "train.steps=6"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

Arguments tiny_run(const std::string& folder, const Arguments& sets) {
  return with_sets({"train", TROUPE_SOURCE_DIR "/configs/tiny.toml", "--out", folder}, tiny_sets(sets));
}

Arguments tiny_resume(const std::string& folder, const Arguments& sets) {
  Arguments arguments = tiny_run(folder, sets);
  arguments.push_back("--resume");
  return arguments;
}

std::vector<nlohmann::json> metrics_of(const std::string& run_folder, const std::string& kind) {
  std::vector<nlohmann::json> found;
  std::istringstream lines(read_file(run_folder + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_discarded() && json.value("kind", "") == kind) found.push_back(json);
  }
  return found;
}

std::vector<std::string> checkpoints_of(const std::string& run_folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(run_folder + "/checkpoints"))
    if (entry.path().extension() != ".partial") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();  // does not throw where a process ends while its /proc is read
  return bytes.str();
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
}

}  // namespace troupe::test
