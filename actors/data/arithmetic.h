// The built-in task: arithmetic with worked solutions, generated. "37+85=..." with the working written out digit by
// digit, so that a small model can learn it exactly. Operands of held-out problems are never seen in training.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "actors/config.h"

namespace troupe {

struct Problem {
  std::string prompt;    // what the model is given, e.g. "37+85="
  std::string solution;  // worked steps and the answer, ends with '\n'
  std::string answer;    // the exact final answer within the solution
};

// Problem number `index` of the training stream or of the held-out set; a pure function of the arguments.
Problem make_problem(const DataConfig& config, std::uint64_t seed, std::uint64_t index, bool held_out);
// The answer that a written solution ends with ("" if none can be read).
std::string answer_of(const std::string& solution);
// No problem of this configuration has more characters (prompt and solution).
std::int64_t problem_length_max(const DataConfig& config);

std::uint64_t power_of_ten(int digits);
// Unordered pairs, numbered so that a pair has one number however many digits there may be: n = u (u + 1) / 2 + v,
// u >= v.
std::pair<std::uint64_t, std::uint64_t> pair_of_number(std::uint64_t number);

}  // namespace troupe
