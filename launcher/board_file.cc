#include "launcher/board_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "actors/mapped_file.h"
#include "kernels/base/error.h"

namespace troupe {

namespace {

std::string path_of(const std::string& run_folder, std::uint32_t node) {
  return fmt::format("{}/boards/node-{}", run_folder, node);
}

// From /proc: state letter, and when it began in the system's ticks.
struct ProcessState {
  char state = 0;  // 0: there is none
  std::int64_t start = 0;
};

ProcessState state_of(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream rest(text.substr(name_end + 1));
  ProcessState found;
  rest >> found.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) rest >> skipped;
  rest >> found.start;
  return found;
}

Life life_of(std::int64_t pid, std::int64_t start) {
  const ProcessState process = state_of(pid);
  const bool other = start != 0 && process.start != start;  // the number was given to somebody else
  if (process.state == 0 || process.state == 'Z' || process.state == 'X' || other) return Life::dead;
  return process.state == 'T' || process.state == 't' ? Life::stopped : Life::running;
}

std::optional<BoardPage> read_file(const std::string& path) try {
  const MappedFile file(path);
  return read_board(file.data(), file.size());
} catch (const Error&) {
  return std::nullopt;
}

}  // namespace

// Made aside and renamed: a reader finds the old one or the new one.
BoardFile::BoardFile(const std::string& run_folder, std::uint32_t node, std::size_t actors_count,
                     std::size_t threads_count, std::int64_t launcher)
    : size_(board_size(actors_count, threads_count)) {
  std::error_code failed;
  std::filesystem::create_directories(run_folder + "/boards", failed);
  const std::string path = path_of(run_folder, node), aside = path + ".new";
  const int fd = open(aside.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  // The blocks are taken now: a full disk must be told here, and not by a signal when a page is first written.
  const int problem = fd < 0 ? errno : posix_fallocate(fd, 0, static_cast<off_t>(size_));
  if (problem == 0) memory_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (problem != 0 || memory_ == MAP_FAILED)
    throw Error("{}: the node's board can't be made; is the disk full, the folder writable?", aside);
  const std::int64_t pid = getpid();
  board_.emplace(static_cast<std::byte*>(memory_), actors_count, threads_count,
                 BoardOwner{pid, state_of(pid).start, launcher});
  if (std::rename(aside.c_str(), path.c_str()) != 0) throw Error("{}: can't be renamed to {}", aside, path);
}

BoardFile::~BoardFile() { munmap(memory_, size_); }

std::vector<BoardPage> read_boards(const std::string& run_folder, int nodes) {
  std::vector<BoardPage> pages;
  for (int node = 0; node < nodes; ++node) {
    auto page = read_file(path_of(run_folder, static_cast<std::uint32_t>(node)));
    if (!page) continue;
    page->life = life_of(page->pid, page->pid_start);
    page->launcher = life_of(page->launcher_pid, 0);
    pages.push_back(std::move(*page));
  }
  return pages;
}

}  // namespace troupe
