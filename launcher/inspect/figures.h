// What a run's metrics.jsonl tells, followed as it grows: the last figures, the bill, the experts' rows of the last steps.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace troupe {

struct LiveFigures {
  nlohmann::json step, evaluation, bill;  // the last line of each kind; null: there was none
  bool finished = false;
  std::string reason;   // why it is over: the key that ended it (train.steps), "interrupted", ...
  std::string tainted;  // what somebody injected last; empty: nothing
  // Rows of each expert, by layer, of the last kExpertSteps steps.
  struct ExpertRows {
    std::int64_t step = 0;
    std::vector<std::int64_t> layers;
    std::vector<std::vector<std::int64_t>> rows;
  };
  std::deque<ExpertRows> experts;
};
constexpr std::size_t kExpertSteps = 64;

class MetricsTail {
 public:
  explicit MetricsTail(std::string path) : path_(std::move(path)) {}
  // Reads what is new. A file that became shorter is read from its beginning.
  const LiveFigures& look();
  // The last lines of the file with their numbers.
  const std::deque<std::pair<std::size_t, std::string>>& lines() const { return lines_; }

 private:
  void hear(const nlohmann::json& line);
  std::string path_;
  std::uint64_t offset_ = 0;
  std::size_t number_ = 0;
  std::string rest_;  // of a line that is not whole yet
  LiveFigures figures_;
  std::deque<std::pair<std::size_t, std::string>> lines_;  // the last kLinesMax, with their numbers
};
constexpr std::size_t kLinesMax = 20'000;

}  // namespace troupe
