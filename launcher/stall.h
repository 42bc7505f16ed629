// Stall warnings: when nothing was handled or computed anywhere for limits.stall_seconds, it is told once who waits for
// whom, to the person and in the metrics. A slow run makes progress: any message handled, any segment finished counts.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "launcher/run_folder.h"
#include "launcher/why.h"

namespace troupe {

// The rule, given time and boards.
class StallRule {
 public:
  explicit StallRule(std::int64_t limit_us) : limit_us_(limit_us) {}
  // True once when a stall is as old as the limit.
  bool look(std::int64_t now_us, const std::vector<BoardPage>& pages);

 private:
  std::int64_t limit_us_, since_us_ = -1;
  std::uint64_t seen_ = 0;
  bool told_ = false;
};

// Of a run's processes, by the launcher's loop. REQUIRES: config and folder outlive it.
class Stalls {
 public:
  Stalls(const Config& config, RunFolder& folder);
  // Cheap when called often: the boards are read once a second.
  void look();

 private:
  void tell(std::int64_t now_us, const std::vector<BoardPage>& pages);
  const Config& config_;
  RunFolder& folder_;
  StallRule rule_;
  std::int64_t looked_us_ = 0;
};

// Of a run in this process: a thread of its own, since the loop may be what stands still.
class StallThread {
 public:
  StallThread(const Config& config, RunFolder& folder);
  ~StallThread();
  StallThread(const StallThread&) = delete;
  StallThread& operator=(const StallThread&) = delete;

 private:
  Stalls stalls_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace troupe
