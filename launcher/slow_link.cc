#include "launcher/slow_link.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <utility>

#include "kernels/base/error.h"
#include "launcher/loop.h"
#include "messages/frame_bytes.h"

namespace troupe {

namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kSecond = 1'000'000'000;

class SlowLink final : public Transport {
 public:
  SlowLink(std::unique_ptr<Transport> below, SlowLinkOptions options)
      : below_(std::move(below)),
        options_(std::move(options)),
        timer_fd_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
        wake_fd_(epoll_create1(EPOLL_CLOEXEC)) {
    if (!options_.now_ns) options_.now_ns = monotonic_ns;
    if (timer_fd_ < 0 || wake_fd_ < 0)
      throw Error("can't make a timer for the slow link: {}; raise the limit of open files", std::strerror(errno));
    watch(timer_fd_);
    if (below_->wake_fd() >= 0) watch(below_->wake_fd());
  }
  ~SlowLink() override {
    send_due(kNever);
    below_.reset();  // it says goodbye while its descriptor is still watched
    close(wake_fd_);
    close(timer_fd_);
  }
  SlowLink(const SlowLink&) = delete;
  SlowLink& operator=(const SlowLink&) = delete;

  std::string local_address() const override { return below_->local_address(); }
  void connect(std::uint32_t node, const std::string& address) override {
    ways_.erase(node);
    below_->connect(node, address);
  }
  void forget(std::uint32_t node) override {
    ways_.erase(node);
    below_->forget(node);
  }
  bool carries_device_memory(std::uint32_t node) const override { return below_->carries_device_memory(node); }
  void send(std::uint32_t node, Frame frame) override {
    Way& way = ways_[node];
    way.free_ns = std::max(options_.now_ns(), way.free_ns);
    if (options_.bytes_per_ns > 0)
      way.free_ns += std::llround(static_cast<double>(bytes_of(frame)) / options_.bytes_per_ns);
    way.frames.push_back({way.free_ns + options_.delay_ns, std::move(frame)});
  }
  bool poll(const std::function<void(Frame)>& deliver) override {
    const bool sent = send_due(options_.now_ns());
    return below_->poll(deliver) || sent;
  }
  bool arm() override {
    const std::int64_t next_ns = next_due_ns();
    if (next_ns <= options_.now_ns()) return false;
    set_timer(next_ns);
    return below_->arm();
  }
  int wake_fd() const override { return wake_fd_; }

 private:
  struct Held {
    std::int64_t due_ns = 0;
    Frame frame;
  };
  struct Way {
    std::int64_t free_ns = 0;  // when its last frame has been put on the link
    std::deque<Held> frames;
  };

  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(wake_fd_, EPOLL_CTL_ADD, fd, &event) != 0)
      throw Error("can't watch the descriptors of a slow link: {}", std::strerror(errno));
  }
  bool send_due(std::int64_t now_ns) {
    bool any = false;
    for (auto& [node, way] : ways_)
      for (; !way.frames.empty() && way.frames.front().due_ns <= now_ns; way.frames.pop_front(), any = true)
        below_->send(node, std::move(way.frames.front().frame));
    return any;
  }
  std::int64_t next_due_ns() const {
    std::int64_t next_ns = kNever;
    for (const auto& [node, way] : ways_)
      if (!way.frames.empty()) next_ns = std::min(next_ns, way.frames.front().due_ns);
    return next_ns;
  }
  // Readable from then on until it is set again; never, if nothing is held.
  void set_timer(std::int64_t at_ns) {
    if (at_ns == timer_ns_) return;
    timer_ns_ = at_ns;
    itimerspec when{};
    if (at_ns != kNever) when.it_value = {at_ns / kSecond, at_ns % kSecond};
    timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
  }

  std::unique_ptr<Transport> below_;
  SlowLinkOptions options_;
  std::map<std::uint32_t, Way> ways_;
  int timer_fd_, wake_fd_;
  std::int64_t timer_ns_ = kNever;
};

}  // namespace

std::unique_ptr<Transport> make_slow_link(std::unique_ptr<Transport> below, SlowLinkOptions options) {
  return std::make_unique<SlowLink>(std::move(below), std::move(options));
}

}  // namespace troupe
