// Usage: where the time of a device's compute threads went. Every thread is in one use at any moment, so the uses sum
// to threads x time since the device began, to the microsecond.
#pragma once

#include <array>
#include <cstdint>
#include <numeric>

namespace troupe {

// What a thread does: learn (forward, backward, weight gradients, optimizer), evaluate (and generate), copy for a
// checkpoint, nothing, make a state to begin with, sample what is learned from, or score it.
enum class Use : std::uint8_t { learn, evaluate, snapshot, idle, load, rollout, score };
constexpr std::size_t kUses = 7;

// Thread-microseconds by use.
struct Usage {
  std::array<std::int64_t, kUses> spent_us{};
  int threads = 0, threads_idle = 0;
  std::size_t ready = 0;  // segments that no thread has taken yet
  std::int64_t of(Use use) const { return spent_us[static_cast<std::size_t>(use)]; }
  std::int64_t total_us() const { return std::accumulate(spent_us.begin(), spent_us.end(), std::int64_t{0}); }
};

// One thread's time, cut where its use changes.
class Timeline {
 public:
  explicit Timeline(std::int64_t begin_us) : since_us_(begin_us) {}
  void enter(Use use, std::int64_t at_us) {
    spent_us_[static_cast<std::size_t>(use_)] += at_us - since_us_;
    use_ = use;
    since_us_ = at_us;
  }
  void add_to(Usage& usage, std::int64_t now_us) const {
    for (std::size_t i = 0; i < kUses; ++i) usage.spent_us[i] += spent_us_[i];
    usage.spent_us[static_cast<std::size_t>(use_)] += now_us - since_us_;
    ++usage.threads;
    usage.threads_idle += use_ == Use::idle ? 1 : 0;
  }

 private:
  std::array<std::int64_t, kUses> spent_us_{};
  Use use_ = Use::idle;
  std::int64_t since_us_;
};

}  // namespace troupe
