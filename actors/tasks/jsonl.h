// JsonlTask: questions with worked answers, one JSON object a line, as GSM8K has them. The files are indexed once; a
// line is read again when its problem is asked for. A question is held out by its own words.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "actors/config.h"
#include "actors/mapped_file.h"
#include "actors/tasks/task.h"

namespace troupe {

class JsonlTask {
 public:
  // Throws Error with file and line.
  explicit JsonlTask(const TaskConfig& config);
  // In an order of the seed's, a new one each time all have been asked for.
  TaskProblem problem(std::uint64_t seed, Split split, std::uint64_t number) const;

 private:
  struct Line {
    std::uint32_t file = 0, bytes = 0;
    std::uint64_t begin = 0;
  };
  struct Pair {
    std::string question, worked;
  };

  void index(std::uint32_t file);
  Pair read(std::string_view line, const std::string& place) const;

  TaskConfig config_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<Line> training_, held_out_;
};

// What follows the last ####, without blanks, commas and $; all of the text where there is none.
std::string final_answer(const std::string& worked);

}  // namespace troupe
