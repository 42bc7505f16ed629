// What the kernel and the administrator allow: descriptors, locked memory, shared memory, and how far a judge's command
// can be confined. The last is asked of a judge, started as a run starts it.
#include <poll.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "launcher/doctor_facts.h"
#include "launcher/judge.h"
#include "launcher/judge_process.h"

namespace troupe {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kJudgeMax{2000};

// Settings that forbid namespaces to who isn't root, by the kernel's name and the value that forbids.
void add_locks(std::vector<std::string>& locks) {
  struct Lock {
    const char *file, *name;
    int forbids;
  };
  for (const Lock& lock : {Lock{"/proc/sys/user/max_user_namespaces", "user.max_user_namespaces", 0},
                           Lock{"/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", 0},
                           Lock{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                                "kernel.apparmor_restrict_unprivileged_userns", 1}}) {
    int value = 0;
    if (std::ifstream(lock.file) >> value && value == lock.forbids)
      locks.push_back(fmt::format("{} is {}", lock.name, value));
  }
}

}  // namespace

LimitFacts look_at_limits() {
  rlimit files{}, locked{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  ::getrlimit(RLIMIT_MEMLOCK, &locked);
  return {.files = files.rlim_cur, .files_hard = files.rlim_max, .locked = locked.rlim_cur};
}

JudgeFacts look_at_judge() {
  JudgeFacts facts;
  add_locks(facts.locks);
  std::error_code failed;
  JudgeProcess judge;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", failed).string();
  facts.problem = failed ? "/proc/self/exe can't be read: mount /proc" : judge.start(program);
  if (!facts.problem.empty()) return facts;
  JudgeSettings settings;
  settings.judge.command = "true";
  settings.folder = judge.folder();
  judge.send(settings_line(settings));
  std::vector<std::string> lines;
  const auto deadline = Clock::now() + kJudgeMax;
  while (lines.empty() && Clock::now() < deadline) {
    pollfd watched{.fd = judge.read_fd(), .events = POLLIN, .revents = 0};
    ::poll(&watched, 1, 100);
    judge.flush();
    if (!judge.receive(lines)) break;
  }
  const std::string ended = judge.end();
  if (lines.empty()) facts.problem = ended.empty() ? "it does not answer" : "it " + ended;
  if (!lines.empty()) facts.notes = notes_of(lines.front());
  return facts;
}

TransportFacts look_at_transport() {
  TransportFacts facts;
  struct statvfs status {};
  facts.has_shared = ::statvfs("/dev/shm", &status) == 0;
  facts.shared_writable = ::access("/dev/shm", W_OK) == 0;
  if (facts.has_shared) {
    facts.shared_size = std::uint64_t{status.f_blocks} * status.f_frsize;
    facts.shared_free = std::uint64_t{status.f_bavail} * status.f_frsize;
  }
  facts.ucx = ask_ucx();
  return facts;
}

}  // namespace troupe
