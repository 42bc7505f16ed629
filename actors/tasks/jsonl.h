// JsonlTask: questions with worked answers, one JSON object a line, as GSM8K has them. The files are indexed once; a
// line is read again when its problem is asked for. A question is held out by its own words.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "actors/config.h"
#include "actors/mapped_file.h"
#include "actors/tasks/task.h"

namespace troupe {

constexpr std::string_view kAnswerMark = "####";  // stands before the answer of a worked one, as GSM8K has it

class JsonlTask {
 public:
  // Questions that don't fit are passed over. Throws Error with file and line.
  JsonlTask(const TaskConfig& config, const std::function<bool(const TaskProblem&)>& fits);
  // In an order of the seed's, a new one each time all have been asked for.
  TaskProblem problem(std::uint64_t seed, Split split, std::uint64_t number) const;
  std::int64_t left_out() const { return left_out_; }
  std::size_t bytes() const { return (training_.capacity() + held_out_.capacity()) * sizeof(Line); }

 private:
  struct Line {
    std::uint32_t file = 0, bytes = 0;
    std::uint64_t begin = 0;
  };
  struct Pair {
    std::string question, worked;
  };

  void index(std::uint32_t file, const std::function<bool(const TaskProblem&)>& fits);
  Pair read(std::string_view line, const std::string& place) const;
  TaskProblem problem_of(const Pair& pair) const;

  TaskConfig config_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<Line> training_, held_out_;
  std::int64_t left_out_ = 0;
};

}  // namespace troupe
