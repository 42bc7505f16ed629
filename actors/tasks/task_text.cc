#include "actors/tasks/task_text.h"

#include <algorithm>
#include <array>

namespace troupe {

namespace {

constexpr const char* kPrefill = "<think>\n";

std::int32_t end_of(const Config& config, const Tokenizer& tokenizer) {
  if (tokenizer.is_bytes() && config.data.chat_template == "plain") return kEndOfAnswer;
  return tokenizer.end_token().value_or(config.model.eos_token_id);
}

// Who only answers may be as long as the model reads.
std::size_t room_of(const Config& config) {
  const int all = config.kind == "evaluate" ? config.model.max_position_embeddings : config.generate_length();
  return static_cast<std::size_t>(std::max(0, all - std::max(1, config.grpo.completion_max)));
}

ChatMessage user(const std::string& text) { return {Speaker::user, text}; }

}  // namespace

TaskText::TaskText(const Config& config)
    : tokenizer_(open_tokenizer(config.data.tokenizer)),
      is_r1_(config.data.chat_template == "r1"),
      end_token_(end_of(config, *tokenizer_)),
      shape_(config.data.chat_template, tokenizer_, end_token_),
      room_(room_of(config)) {
  end_token_ = shape_.end_token();
}

std::vector<std::int32_t> TaskText::prompt(const TaskProblem& problem) const {
  return shape_.prompt(std::array{user(problem.prompt)}).ids;
}

bool TaskText::has_room(const TaskProblem& problem) const { return prompt(problem).size() <= room_; }

ChatTokens TaskText::example(const TaskProblem& problem) const {
  return shape_.example(std::array{user(problem.prompt), ChatMessage{Speaker::assistant, problem.solution}});
}

std::string TaskText::answer(const std::vector<std::int32_t>& tokens) const {
  const bool ended = !tokens.empty() && tokens.back() == end_token_;
  return (is_r1_ ? kPrefill : "") + tokenizer_->decode(tokens.data(), tokens.size() - (ended ? 1 : 0));
}

int prompts_per_round(const Config& config) {
  return config.grpo.updates_per_rollout * config.train.batch_sequences / config.grpo.group_size;
}

// A rollout's problems follow those of the rollout before, whatever number of rounds that took.
TaskProblem problem_of(const Config& config, const TaskSet& tasks, bool train, std::int64_t rollout,
                       std::int32_t prompt) {
  const int rounds = config.grpo.dynamic_sampling ? config.grpo.sampling_rounds_max : 1;
  const std::int64_t first = train ? rollout * rounds * prompts_per_round(config) : 0;
  const Split split = train || config.evaluate.split == "train" ? Split::train : Split::held_out;
  return tasks.problems.problem(config.train.seed, split, static_cast<std::uint64_t>(first + prompt));
}

}  // namespace troupe
