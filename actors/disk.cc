// PosixDisk: one thread that does the jobs (actors/disk_jobs.h) in the order they were asked for.
#include "actors/disk.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "actors/disk_jobs.h"
#include "kernels/base/check.h"

namespace troupe {
namespace {

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
    queue([this, path = std::move(path)] { work_.make_folder(path); });
  }
  void write(std::string path, std::uint64_t offset, Payload bytes) override {
    queued_bytes_ += bytes.size;
    queue([this, path = std::move(path), offset, bytes = std::move(bytes)] {
      queued_bytes_ -= bytes.size;
      work_.write(path, offset, bytes);
    });
  }
  void write_text(std::string path, std::string text) override {
    queued_bytes_ += text.size();
    queue([this, path = std::move(path), text = std::move(text)] {
      queued_bytes_ -= text.size();
      work_.write_text(path, text);
    });
  }
  void run(std::function<void()> work) override {
    queue([this, work = std::move(work)] { work_.run(work); });
  }
  void commit_folder(std::string from, std::string to) override {
    queue([this, from = std::move(from), to = std::move(to)] { work_.commit_folder(from, to); });
  }
  void remove_folder(std::string path) override {
    queue([this, path = std::move(path)] { work_.remove_folder(path); });
  }
  void report(std::uint32_t actor, std::uint64_t token) override {
    queue([this, actor, token] {
      const std::lock_guard lock(mutex_);
      outcomes_.push_back({.actor = actor, .token = token, .problem = work_.take_problem()});
      told_.store(true, std::memory_order_release);
      const std::uint64_t one = 1;
      CHECK(::write(event_, &one, sizeof(one)) == sizeof(one), "eventfd is full: {}", std::strerror(errno));
    });
  }

  void take_outcomes(std::vector<DiskOutcome>& out) override {
    if (!told_.load(std::memory_order_acquire)) return;
    const std::lock_guard lock(mutex_);
    told_.store(false, std::memory_order_relaxed);
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t drained = ::read(event_, &count, sizeof(count));
    for (DiskOutcome& outcome : outcomes_) out.push_back(std::move(outcome));
    outcomes_.clear();
  }
  int outcome_fd() const override { return event_; }
  std::size_t queued_bytes() const override { return queued_bytes_; }
  std::size_t jobs() const override {
    const std::lock_guard lock(mutex_);
    return jobs_.size() + (busy_ ? 1 : 0);
  }

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
        busy_ = true;
      }
      job();
      const std::lock_guard lock(mutex_);
      busy_ = false;
    }
  }

  const int event_;
  std::atomic<std::size_t> queued_bytes_{0};
  DiskJobs work_;  // disk thread only
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  bool closing_ = false, busy_ = false;
  std::deque<std::function<void()>> jobs_;
  std::vector<DiskOutcome> outcomes_;
  std::atomic<bool> told_{false};  // outcomes_ isn't empty: asked at every turn, so without the lock
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Disk> make_posix_disk() { return std::make_unique<PosixDisk>(); }

}  // namespace troupe
