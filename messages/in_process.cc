// Transports between nodes of one process, through a shared hub of inboxes. Law: which faults strike the n-th frame
// from one node to another is a pure function of the seed, and without faults nothing is lost, repeated or reordered.
#include "messages/in_process.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

constexpr std::uint64_t kHeldPollsMax = 4;  // how long a reordered frame is overtaken

// Frames on their way to one node. Any node's thread puts, the owner's takes.
class Inbox {
 public:
  Inbox() : wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (wake_fd_ < 0) throw Error("no event descriptor: {}, raise the limit of open files", std::strerror(errno));
  }
  ~Inbox() { ::close(wake_fd_); }
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  void put(Frame frame, std::uint64_t held_polls) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back({std::move(frame), held_polls});
    if (std::exchange(awake_, true)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
  }

  // What is due now; a frame held back comes at a later call.
  std::vector<Frame> take() {
    const std::lock_guard lock(mutex_);
    std::vector<Frame> due;
    std::vector<Waiting> later;
    for (Waiting& waiting : waiting_) {
      if (waiting.held_polls == 0)
        due.push_back(std::move(waiting.frame));
      else
        later.push_back({std::move(waiting.frame), waiting.held_polls - 1});
    }
    waiting_ = std::move(later);
    if (std::exchange(awake_, false)) {
      std::uint64_t count = 0;
      [[maybe_unused]] const auto read = ::read(wake_fd_, &count, sizeof count);
    }
    return due;
  }

  bool empty() const {
    const std::lock_guard lock(mutex_);
    return waiting_.empty();
  }
  int wake_fd() const { return wake_fd_; }

 private:
  struct Waiting {
    Frame frame;
    std::uint64_t held_polls = 0;
  };
  mutable std::mutex mutex_;
  std::vector<Waiting> waiting_;
  bool awake_ = false;  // wake_fd_ is readable
  const int wake_fd_;
};

struct Hub {
  Hub(std::uint32_t nodes, bool carries) : inboxes(nodes), carries_device(carries) {}
  std::vector<Inbox> inboxes;
  const bool carries_device;
  PayloadPool pool;
};

class InProcessTransport final : public Transport {
 public:
  InProcessTransport(std::shared_ptr<Hub> hub, std::uint32_t node, const InProcessFaults& faults)
      : hub_(std::move(hub)), node_(node), faults_(faults), sent_(hub_->inboxes.size()) {}

  std::string local_address() const override { return fmt::format("in-process {}", node_); }
  void connect(std::uint32_t node, const std::string&) override { forgotten_.erase(node); }
  void forget(std::uint32_t node) override { forgotten_.insert(node); }

  bool carries_device_memory(std::uint32_t node) const override {
    return hub_->carries_device && node < hub_->inboxes.size() && !forgotten_.contains(node);
  }

  void send(std::uint32_t node, Frame frame) override {
    CHECK(frame.device.empty() || hub_->carries_device, "{} payloads in device memory to another node",
          frame.device.size());
    if (node >= hub_->inboxes.size() || forgotten_.contains(node)) return;
    const std::uint64_t number = sent_[node]++;
    if (strikes(faults_.drop, "drop", node, number)) return;
    concatenate_payloads(frame);
    const bool twice = strikes(faults_.duplicate, "duplicate", node, number);
    if (twice) hub_->inboxes[node].put(frame, held_polls("duplicate", node, number));
    if (strikes(faults_.corrupt, "corrupt", node, number)) corrupt(frame, node, number);
    hub_->inboxes[node].put(std::move(frame), held_polls("original", node, number));
  }

  bool poll(const std::function<void(Frame)>& deliver) override {
    std::vector<Frame> due = hub_->inboxes[node_].take();
    for (Frame& frame : due) deliver(std::move(frame));
    return !due.empty();
  }

  bool arm() override { return hub_->inboxes[node_].empty(); }
  int wake_fd() const override { return hub_->inboxes[node_].wake_fd(); }

 private:
  // A key for one purpose on the way from this node to `node`.
  std::uint64_t key(const char* purpose, std::uint32_t node) const {
    return random_key(faults_.seed, fmt::format("in process {} {} {}", purpose, node_, node));
  }
  bool strikes(double probability, const char* purpose, std::uint32_t node, std::uint64_t number) const {
    return probability > 0 && random_uniform(key(purpose, node), number) < probability;
  }
  std::uint64_t held_polls(const char* which, std::uint32_t node, std::uint64_t number) const {
    if (faults_.reorder <= 0) return 0;
    const std::uint64_t held = key("held", node) ^ random_key(0, which);
    return random_uniform(held, number, 0) < faults_.reorder ? 1 + random_below(kHeldPollsMax, held, number, 1) : 0;
  }

  // Changes one byte of the header, never into itself.
  void corrupt(Frame& frame, std::uint32_t node, std::uint64_t number) const {
    if (frame.header.empty()) return;
    const std::uint64_t where = random_below(frame.header.size(), key("where", node), number);
    frame.header[where] ^= static_cast<std::byte>(1 + random_below(255, key("what", node), number));
  }

  // What arrives looks as it would from another process: one payload, or none.
  void concatenate_payloads(Frame& frame) {
    Payload whole = concatenate(frame.payloads, hub_->pool);
    frame.payloads.clear();
    if (whole.size > 0) frame.payloads.push_back(std::move(whole));
  }

  const std::shared_ptr<Hub> hub_;
  const std::uint32_t node_;
  const InProcessFaults faults_;
  std::vector<std::uint64_t> sent_;  // frames so far, by node
  std::set<std::uint32_t> forgotten_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> make_in_process_transports(std::uint32_t nodes, const InProcessFaults& faults,
                                                                   bool carries_device) {
  auto hub = std::make_shared<Hub>(nodes, carries_device);
  std::vector<std::unique_ptr<Transport>> transports;
  for (std::uint32_t node = 0; node < nodes; ++node)
    transports.push_back(std::make_unique<InProcessTransport>(hub, node, faults));
  return transports;
}

}  // namespace troupe
