// Space: all problems of a generated task at one level, numbered. A space has units (a pair of operands, a string of
// digits, a set of numbers), and some tries in each; position = unit * tries + try. Equal problems share a unit.
#pragma once

#include <cstdint>
#include <string>

#include "actors/config.h"

namespace troupe {

struct Space {
  std::string task;  // arithmetic, reverse, sort, countdown
  int level = 0;
  std::uint64_t units = 0, tries = 1;
  int number_max = 0, target_max = 0;  // countdown

  std::uint64_t positions() const { return units * tries; }
};

// REQUIRES: 1 <= level <= level_most(task).
Space space_of(const TaskConfig& config, const std::string& task, int level);
// The problem at a position, alike however it is asked (order of operands, operation); "" where there is none.
std::string content_at(const Space& space, std::uint64_t position);

// A problem in words, not yet in a template.
struct Draft {
  std::string plain, question;  // the prompt of either template
  std::string thought;          // what an r1 solution says before it gives the answer
  std::string shown;            // the answer as a solution shows it
  std::string answer;           // what responses are compared with
};
// `key`, `number`: draw what the content leaves open.
Draft draft_at(const Space& space, std::uint64_t position, const TaskConfig& config, std::uint64_t key,
               std::uint64_t number);

}  // namespace troupe
