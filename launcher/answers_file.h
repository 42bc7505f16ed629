// Answers to held-out problems as a value, and as a file that a person and a later comparison read: one JSON line an
// answer, by problem; of each problem the sampled ones, then the greedy one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

struct EvaluatedAnswer {
  std::string response;
  std::string said;  // what counts in a vote; empty: no vote
  bool correct = false, formatted = false, truncated = false;
  double reward = 0;
  std::int64_t tokens = 0;
  friend bool operator==(const EvaluatedAnswer&, const EvaluatedAnswer&) = default;
};

struct EvaluatedProblem {
  std::string task, problem, answer;  // problem: the prompt
  std::int64_t level = 0, index = 0;  // among the held-out ones
  std::vector<EvaluatedAnswer> sampled;
  std::optional<EvaluatedAnswer> greedy;
  friend bool operator==(const EvaluatedProblem&, const EvaluatedProblem&) = default;
};

std::string answers_text(const std::vector<EvaluatedProblem>& problems);
// Throws Error with file and line.
std::vector<EvaluatedProblem> read_answers(const std::string& path);

// SHA-256 over the problems in order, a line of JSON each: [task, level, problem, answer].
std::string problems_digest(const std::vector<EvaluatedProblem>& problems);

}  // namespace troupe
