#include "launcher/loop.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <thread>

#include "kernels/base/check.h"

namespace troupe {

namespace {
constexpr std::int64_t kLookUs = 5'000;  // the watched descriptors are looked at even when the node is never idle
// A transport that has something queued for a dead peer may never arm again: after so many refusals in a row the loop
// looks now and then instead of always.
constexpr int kRefusedMax = 200;
constexpr std::int64_t kUnarmedSleepUs = 100;
// While it spins it asks the clock now and then, and lets whoever else wants the core have it, which costs a microsecond.
constexpr int kLooksAClock = 16;
constexpr std::int64_t kYieldUs = 10;

// The loop computes little, and everybody waits for it: a thread that asks for short slices is let in at once when it
// wakes, before one that computes has used up its own (Linux 6.12; an older one doesn't know this and changes nothing).
void ask_for_short_slices() {
  struct {  // the kernel's sched_attr, which no header of the C library's has beside <sched.h>
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  } attributes{};
  attributes.size = sizeof attributes;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return;
  attributes.runtime = 100'000;
  attributes.flags |= 1;  // SCHED_FLAG_RESET_ON_FORK: threads and processes that this one makes are as others
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}
}  // namespace

std::int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}
std::int64_t thread_time_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}
std::int64_t monotonic_us() { return monotonic_ns() / 1000; }

Loop::Loop(Node& node, std::int64_t spin_us)
    : node_(node),
      spin_us_(node.parts().transport == nullptr ? 0 : spin_us),
      threads_(static_cast<std::size_t>(node.parts().device->usage(monotonic_us()).threads)),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)) {
  CHECK(epoll_fd_ >= 0, "epoll_create1 failed");
  const auto nothing = [] {};
  NodeParts& parts = node.parts();
  if (parts.device->completion_fd() >= 0) watch(parts.device->completion_fd(), nothing);
  if (parts.disk != nullptr && parts.disk->outcome_fd() >= 0) watch(parts.disk->outcome_fd(), nothing);
  if (parts.jury != nullptr && parts.jury->outcome_fd() >= 0) watch(parts.jury->outcome_fd(), nothing);
  if (parts.transport != nullptr) watch(parts.transport->wake_fd(), nothing);
}

Loop::~Loop() { close(epoll_fd_); }

void Loop::watch(int fd, std::function<void()> readable) {
  watched_[fd] = std::move(readable);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0, "can't watch descriptor {}", fd);
}

void Loop::sleep(std::int64_t us) {
  std::array<epoll_event, 16> events{};
  const timespec limit{us / 1'000'000, us % 1'000'000 * 1000};
  const int ready = epoll_pwait2(epoll_fd_, events.data(), static_cast<int>(events.size()), &limit, nullptr);
  for (int i = 0; i < ready; ++i) {
    const auto watcher = watched_.find(events[static_cast<std::size_t>(i)].data.fd);
    if (watcher != watched_.end()) watcher->second();
  }
}

bool Loop::spin() {
  const Device& device = *node_.parts().device;
  const std::size_t pending = device.pending();
  if (spin_us_ == 0 || pending >= threads_) return false;
  const std::int64_t until_us = node_.now_us() + spin_us_;
  std::int64_t yield_us = node_.now_us() + kYieldUs;
  for (int looks = 1; device.pending() == pending; ++looks) {
    if (node_.look()) return true;
    if (looks % kLooksAClock != 0) continue;
    const std::int64_t now_us = monotonic_us();
    if (now_us >= until_us) return false;
    if (now_us < yield_us) continue;
    yield_us = now_us + kYieldUs;
    std::this_thread::yield();
  }
  return true;
}

void Loop::run(const std::function<bool()>& done) {
  ask_for_short_slices();
  Transport* transport = node_.parts().transport;
  while (!done()) {
    if (node_.turn(monotonic_us())) {
      refused_ = 0;
      if (node_.now_us() - last_look_us_ > kLookUs) {
        last_look_us_ = node_.now_us();
        sleep(0);
      }
      continue;
    }
    if (done()) return;
    // Waking would take longer than what is waited for, and a core is free.
    if (node_.parts().device->hurries()) {
      std::this_thread::yield();
      continue;
    }
    node_.rest(monotonic_us());
    if (spin()) continue;
    const bool armed = transport == nullptr || transport->arm();
    refused_ = armed ? 0 : refused_ + 1;
    if (armed)
      sleep(Node::kTickUs);
    else if (refused_ > kRefusedMax)
      sleep(kUnarmedSleepUs);
  }
}

}  // namespace troupe
