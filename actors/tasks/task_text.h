// TaskText: problems and answers as tokens, for whoever samples, judges and trains on them: one place, so that all
// agree.
//   data.template = "plain"  the prompt's text; an answer ends with the tokenizer's end token, with bytes with a line
//                            break
//   data.template = "r1"     DeepSeek-R1's words around the prompt; an answer begins with <think> and a line break,
//                            which are given
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
  // Opens the tokenizer; throws Error: it has more tokens than model.vocab_size.
  explicit TaskText(const Config& config);
  std::vector<std::int32_t> prompt(const TaskProblem& problem) const;
  // The prompt with the solution and its end, which are learned.
  ChatTokens example(const TaskProblem& problem) const;
  // Whether the room of a sequence holds the prompt, and an answer: one token at the least, grpo.completion_max where
  // the run asks for answers.
  bool has_room(const TaskProblem& problem) const;
  std::int32_t end_token() const { return shape_.end_token(); }
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  // What an answer says, without its end.
  std::string answer(const std::vector<std::int32_t>& tokens) const;

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatTemplate shape_;
  std::size_t room_;  // tokens of a prompt
};

// What [task] names, opened, and how it is written down. Const, and shared by all that ask.
struct TaskSet {
  // Questions of files that a sequence has no room for are left out.
  explicit TaskSet(const Config& config)
      : text(config), problems(config.task, [this](const TaskProblem& problem) { return text.has_room(problem); }) {}
  TaskText text;
  Tasks problems;
};

// A problem of a rollout, or of an evaluation, which has the same each time.
TaskProblem problem_of(const Config& config, const TaskSet& tasks, bool train, std::int64_t rollout,
                       std::int32_t prompt);
// Prompts of one round of a rollout: updates x sequences of a step / samples of a prompt.
int prompts_per_round(const Config& config);

}  // namespace troupe
