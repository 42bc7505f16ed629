// PosixDisk: one thread that does file work in the order it was asked for. The law: after the first problem nothing
// more is written until it was reported, and a folder in which anything went wrong is removed, never renamed.
#include "actors/disk.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

class OpenFile {
 public:
  OpenFile(const std::string& path, int flags) : path_(path), file_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (file_ < 0) throw Error("can't open {}: {}", path, std::strerror(errno));
  }
  ~OpenFile() {
    if (file_ >= 0) ::close(file_);
  }
  OpenFile(const OpenFile&) = delete;

  void write(std::uint64_t offset, const char* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t count = ::pwrite(file_, bytes, size, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw Error("can't write {}: {}", path_, std::strerror(errno));
      bytes += count;
      offset += static_cast<std::uint64_t>(count);
      size -= static_cast<std::size_t>(count);
    }
  }
  void sync() {
    if (::fsync(file_) != 0) throw Error("can't sync {}: {}", path_, std::strerror(errno));
  }
  // Some file systems tell of a full disk only here.
  void close() {
    const int file = std::exchange(file_, -1);
    if (::close(file) != 0 && errno != EINTR) throw Error("can't close {}: {}", path_, std::strerror(errno));
  }

 private:
  std::string path_;
  int file_;
};

void sync_path(const fs::path& path) { OpenFile(path.string(), O_RDONLY).sync(); }

void make_empty_folder(const std::string& path) {
  fs::remove_all(path);
  fs::create_directories(path);
}

void write_at(const std::string& path, std::uint64_t offset, const char* bytes, std::size_t size, int flags) {
  OpenFile file(path, O_WRONLY | O_CREAT | flags);
  file.write(offset, bytes, size);
  file.close();
}

// Every file of the folder, not only those this thread wrote: `run` may have written some.
void sync_and_rename(const std::string& from, const std::string& to) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(from)) {
    if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path());
  }
  sync_path(from);
  const bool replaces = fs::exists(to);  // the same version again, after falling back to an older one
  const unsigned flags = replaces ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0) {
    throw Error("can't rename {} to {}: {}", from, to, std::strerror(errno));
  }
  const fs::path parent = fs::absolute(to).parent_path();
  sync_path(parent);
  if (replaces) fs::remove_all(from);
}

class PosixDisk final : public Disk {
 public:
  PosixDisk() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    CHECK(event_ >= 0, "no eventfd: {}", std::strerror(errno));
    thread_ = std::thread([this] { work_until_closed(); });
  }
  // What was asked for is done first.
  ~PosixDisk() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    ready_.notify_one();
    thread_.join();
    ::close(event_);
  }

  void make_folder(std::string path) override {
    queue([this, path = std::move(path)] {
      if (has_problem()) return;
      spoiled_ = false;
      make_empty_folder(path);
    });
  }
  void write(std::string path, std::uint64_t offset, Payload bytes) override {
    queued_bytes_ += bytes.size;
    queue([this, path = std::move(path), offset, bytes = std::move(bytes)] {
      queued_bytes_ -= bytes.size;
      if (!has_problem()) write_at(path, offset, reinterpret_cast<const char*>(bytes.data.get()), bytes.size, 0);
    });
  }
  void write_text(std::string path, std::string text) override {
    queued_bytes_ += text.size();
    queue([this, path = std::move(path), text = std::move(text)] {
      queued_bytes_ -= text.size();
      if (!has_problem()) write_at(path, 0, text.data(), text.size(), O_TRUNC);
    });
  }
  void run(std::function<void()> work) override {
    queue([this, work = std::move(work)] {
      if (!has_problem()) work();
    });
  }
  void commit_folder(std::string from, std::string to) override {
    queue([this, from = std::move(from), to = std::move(to)] { commit(from, to); });
  }
  // After a problem only what was never complete may go: an older checkpoint is then worth keeping.
  void remove_folder(std::string path) override {
    queue([this, path = std::move(path)] {
      if (!has_problem() || path.ends_with(".partial")) fs::remove_all(path);
    });
  }
  void report(std::uint32_t actor, std::uint64_t token) override {
    queue([this, actor, token] {
      const std::lock_guard lock(mutex_);
      outcomes_.push_back({.actor = actor, .token = token, .problem = std::exchange(problem_, {})});
      const std::uint64_t one = 1;
      CHECK(::write(event_, &one, sizeof(one)) == sizeof(one), "eventfd is full: {}", std::strerror(errno));
    });
  }

  void take_outcomes(std::vector<DiskOutcome>& out) override {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t drained = ::read(event_, &count, sizeof(count));
    const std::lock_guard lock(mutex_);
    for (DiskOutcome& outcome : outcomes_) out.push_back(std::move(outcome));
    outcomes_.clear();
  }
  int outcome_fd() const override { return event_; }
  std::size_t queued_bytes() const override { return queued_bytes_; }

 private:
  void queue(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    ready_.notify_one();
  }

  void work_until_closed() {
    while (true) {
      std::function<void()> job;
      {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [this] { return closing_ || !jobs_.empty(); });
        if (jobs_.empty()) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      try {
        job();
      } catch (const std::exception& problem) {
        spoil(problem.what());
      }
    }
  }

  void commit(const std::string& from, const std::string& to) {
    if (spoiled_) {
      spoil(fmt::format("{} was not kept: writing it failed", to));
    } else {
      try {
        sync_and_rename(from, to);
        return;
      } catch (const std::exception& problem) {
        spoil(problem.what());
      }
    }
    std::error_code ignored;  // the first problem is the one to tell
    fs::remove_all(from, ignored);
  }

  void spoil(const std::string& problem) {
    spoiled_ = true;
    const std::lock_guard lock(mutex_);
    if (problem_.empty()) problem_ = problem;
  }
  bool has_problem() {
    const std::lock_guard lock(mutex_);
    return !problem_.empty();
  }

  const int event_;
  std::atomic<std::size_t> queued_bytes_{0};
  bool spoiled_ = false;  // disk thread only: something failed since the last make_folder
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  bool closing_ = false;
  std::deque<std::function<void()>> jobs_;
  std::vector<DiskOutcome> outcomes_;
  std::string problem_;  // the first since the last report
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Disk> make_posix_disk() { return std::make_unique<PosixDisk>(); }

}  // namespace troupe
