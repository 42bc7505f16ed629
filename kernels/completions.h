// Completions on their way from a device's threads to the loop thread, with a descriptor that is readable exactly while
// some wait.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "kernels/device.h"

namespace troupe {

class Completions {
 public:
  Completions();  // throws Error: no more descriptors
  ~Completions();
  Completions(const Completions&) = delete;
  Completions& operator=(const Completions&) = delete;

  void expect() { pending_.fetch_add(1, std::memory_order_acq_rel); }  // one more will come
  void add(const std::vector<Segment>& done);
  void take(std::vector<Completion>& out);
  int descriptor() const { return event_; }
  std::size_t pending() const { return pending_.load(std::memory_order_acquire); }

 private:
  std::mutex mutex_;
  std::vector<Completion> done_;
  int event_;
  std::atomic<std::size_t> pending_ = 0;
};

}  // namespace troupe
