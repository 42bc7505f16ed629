// OwnThread: a thread that does what others ask it to, one thing after another, while they wait. For what must be made,
// used and ended on one thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

namespace troupe {

class OwnThread {
 public:
  OwnThread() : thread_([this] { work(); }) {}
  ~OwnThread() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    something_.notify_one();
    thread_.join();
  }
  OwnThread(const OwnThread&) = delete;
  OwnThread& operator=(const OwnThread&) = delete;

  // What it returns or throws is the caller's.
  template <typename Work>
  auto run(Work work) -> decltype(work()) {
    std::packaged_task<decltype(work())()> task(std::move(work));
    auto result = task.get_future();
    {
      const std::lock_guard lock(mutex_);
      asked_.push_back([&task] { task(); });
    }
    something_.notify_one();
    return result.get();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      something_.wait(lock, [this] { return over_ || !asked_.empty(); });
      if (asked_.empty()) return;
      const std::function<void()> next = std::move(asked_.front());
      asked_.pop_front();
      lock.unlock();
      next();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable something_;
  std::deque<std::function<void()>> asked_;
  bool over_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace troupe
