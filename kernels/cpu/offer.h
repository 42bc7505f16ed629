// Offer: an op in parts, which a compute thread offers to those that idle. The owner takes parts itself until none is
// left, and waits only for parts that a helper has begun. Nobody wakes anybody: who sleeps does not help.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "kernels/op.h"

namespace troupe::cpu {

class Offer {
 public:
  // Of the owner: fill parts(), then run them with whoever comes. run(op) runs one on the caller's thread.
  std::vector<Op>& parts() { return parts_; }
  template <typename Run>
  void carry_out(Run run) {
    next_.store(0, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const int count = static_cast<int>(parts_.size());
    open_.store(count);
    done_.fetch_add(take(count, run));
    spin_until([&] { return done_.load(std::memory_order_acquire) == count; });
    open_.store(0);
    spin_until([&] { return helpers_.load() == 0; });  // they are on their way out
  }

  bool is_open() const { return open_.load(std::memory_order_relaxed) > 0; }
  // Of another thread. False: there was nothing left.
  template <typename Run>
  bool help(Run run) {
    helpers_.fetch_add(1);
    const int count = open_.load();  // after helpers_: the owner sees the helper, or the helper sees that it is over
    const int taken = count > 0 ? take(count, run) : 0;
    done_.fetch_add(taken, std::memory_order_release);
    helpers_.fetch_sub(1);
    return taken > 0;
  }

 private:
  template <typename Done>
  static void spin_until(Done done) {
    for (int i = 1; !done(); ++i) i % kPauses == 0 ? std::this_thread::yield() : __builtin_ia32_pause();
  }
  template <typename Run>
  int take(int count, Run& run) {
    int taken = 0;
    for (int i = next_.fetch_add(1); i < count; i = next_.fetch_add(1), ++taken)
      run(parts_[static_cast<std::size_t>(i)]);
    return taken;
  }

  static constexpr int kPauses = 1000;  // some ten microseconds: then a helper may have lost its core
  std::vector<Op> parts_;
  std::atomic<int> open_ = 0, next_ = 0, done_ = 0, helpers_ = 0;
};

}  // namespace troupe::cpu
