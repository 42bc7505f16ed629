// RunWatcher: looks at a run's folder, again and again: boards, journals and metrics. It asks nobody, so it works when an
// actor is stuck, and when a process is stopped or dead.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>

#include "launcher/inspect/source.h"

namespace troupe {

class RunWatcher final : public InspectSource {
 public:
  // Throws Error: `path` is no run's folder.
  explicit RunWatcher(const std::string& path, bool can_control = false);
  View look() override;
  std::vector<JournalPage> journals(std::uint64_t most) override;
  MetricsTail& metrics() override { return metrics_; }
  std::string control(const Control& control) override;
  std::string token() override;
  const Config& config() const { return config_; }
  const std::string& run() const { return run_; }

 private:
  // How far the journals were, by node.
  struct Mark {
    std::int64_t at_us = 0;
    std::map<std::uint32_t, std::uint64_t> written;
  };
  TrafficMap traffic(std::int64_t now_us);
  const BoardPage& page_of(std::uint32_t node) const;
  std::string run_;
  Config config_;
  Plan plan_;
  ViewOptions options_;
  MetricsTail metrics_;
  std::optional<Observed> before_;
  std::deque<Mark> marks_;  // of the last looks, one of them older than kTrafficUs
};

}  // namespace troupe
