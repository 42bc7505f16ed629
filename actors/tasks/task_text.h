// TaskText: problems and answers as tokens, for whoever samples, judges and trains on them: one place, so that all agree.
//   data.template = "plain"  the prompt's text; an answer ends with the tokenizer's end token, with bytes with a line break
//   data.template = "r1"     DeepSeek-R1's words around the prompt; an answer begins with <think> and a line break, given
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/data/chat.h"
#include "actors/data/tokenizer.h"
#include "actors/tasks/task.h"

namespace troupe {

class TaskText {
 public:
  // Opens the tokenizer; throws Error.
  explicit TaskText(const Config& config);
  std::vector<std::int32_t> prompt(const TaskProblem& problem) const;
  // The prompt with the solution and its end, which are learned.
  ChatTokens example(const TaskProblem& problem) const;
  std::int32_t end_token() const { return end_token_; }
  // What an answer says, without its end.
  std::string answer(const std::vector<std::int32_t>& tokens) const;

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool is_r1_;
  std::int32_t end_token_;
  ChatTemplate shape_;
};

// What [task] names, opened, and how it is written down. Const, and shared by all that ask.
struct TaskSet {
  explicit TaskSet(const Config& config) : problems(config.task), text(config) {}
  Tasks problems;
  TaskText text;
};

std::vector<std::int32_t> bytes_as_tokens(const std::string& text);
std::string tokens_as_bytes(const std::vector<std::int32_t>& tokens);

// Whose problems: those of training, or of an evaluation.
Split split_of(const Config& config, bool train);

// Where the problems of a rollout begin in the stream of training problems.
std::uint64_t first_problem(const Config& config, std::int64_t rollout);
// Prompts of one round of a rollout: updates x sequences of a step / samples of a prompt.
int prompts_per_round(const Config& config);

}  // namespace troupe
