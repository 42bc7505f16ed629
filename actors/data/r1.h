// R1's words: the tags that an answer in the r1 template is written in, and what is written with them. One place, so
// that whoever asks, teaches and verifies means the same.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace troupe {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>", kAnswer = "<answer>", kAnswerEnd = "</answer>";
constexpr std::string_view kPrefill = "<think>\n";  // what an answer is given to begin with

// `what` is asked for: the answer, the expression.
inline std::string r1_prompt(const std::string& question, const std::string& what) {
  return fmt::format("{} Think inside {} {}, then give the {} inside {} {}.", question, kThink, kThinkEnd, what,
                     kAnswer, kAnswerEnd);
}
inline std::string r1_solution(const std::string& thought, const std::string& answer) {
  return fmt::format("{}{}{}{}{}{}", kThink, thought, kThinkEnd, kAnswer, answer, kAnswerEnd);
}

}  // namespace troupe
