// Verification: what a response is worth. Pure, and linear in the response, whatever that holds; nothing in it is ever
// run. The same function scores in a jury's processes, in a simulated world and in an evaluation.
//   arithmetic, reverse, sort  1 for the answer itself (blanks around it don't count), else 0
//   jsonl                      1 if the last number of the answer equals the known one, else 0
//   countdown                  1 for an expression of exactly these numbers that equals the target; 0.1 for an <answer>
//                              block with anything else; 0 without one. In the plain template there are no blocks: 0.1
//                              for another expression, 0 for what is none
// In the r1 template the answer is the last <answer>...</answer>, and judge.format_reward is added when the response is
// <think>...</think><answer>...</answer>, each tag once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "actors/config.h"
#include "actors/tasks/task.h"

namespace troupe {

struct Score {
  double reward = 0;
  bool correct = false, formatted = false;
  std::string detail;  // one short line of ASCII
  bool operator==(const Score&) const = default;
};

struct VerifyRules {
  bool has_tags = false;  // template r1
  double format_reward = 0;
};
VerifyRules verify_rules(const Config& config);

Score verify(const std::string& task, const std::string& answer, const std::string& response, const VerifyRules& rules);

// What a response answers, for votes: alike for answers that are the same; "" if it has none. An expression is what it
// is written as.
std::string said(const std::string& task, const std::string& response, const VerifyRules& rules);

// ---- As lines of JSON, between a judge and its jury -----------------------------------------------------------------

// {"task","prompt","answer","response","level"}; bytes of the response that are no UTF-8 become U+FFFD.
std::string request_line(const TaskProblem& problem, const std::string& response);
// {"reward","correct","formatted","detail"}
std::string verdict_line(const Score& score);
// "" or why the line is no verdict. Only "reward" must be there, a finite number; correct is reward >= 1 unless told.
std::string read_verdict(const std::string& line, Score& score);
// The verdict on a request line, verified here; a line that is no request is worth nothing, and the detail says so.
std::string verdict_on(const std::string& request, const VerifyRules& rules);

}  // namespace troupe
