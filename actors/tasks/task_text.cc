#include "actors/tasks/task_text.h"

#include <array>

namespace troupe {

namespace {

constexpr const char* kPrefill = "<think>\n";

std::int32_t end_of(const Config& config, const Tokenizer& tokenizer) {
  if (tokenizer.is_bytes() && config.data.chat_template == "plain") return kEndOfAnswer;
  return tokenizer.end_token().value_or(config.model.eos_token_id);
}

ChatMessage user(const std::string& text) { return {Speaker::user, text}; }

}  // namespace

TaskText::TaskText(const Config& config)
    : tokenizer_(open_tokenizer(config.data.tokenizer)),
      is_r1_(config.data.chat_template == "r1"),
      end_token_(end_of(config, *tokenizer_)),
      shape_(config.data.chat_template, tokenizer_, end_token_) {
  end_token_ = shape_.end_token();
}

std::vector<std::int32_t> TaskText::prompt(const TaskProblem& problem) const {
  return shape_.prompt(std::array{user(problem.prompt)}).ids;
}

ChatTokens TaskText::example(const TaskProblem& problem) const {
  return shape_.example(std::array{user(problem.prompt), ChatMessage{Speaker::assistant, problem.solution}});
}

std::string TaskText::answer(const std::vector<std::int32_t>& tokens) const {
  const bool ended = !tokens.empty() && tokens.back() == end_token_;
  return (is_r1_ ? kPrefill : "") + tokenizer_->decode(tokens.data(), tokens.size() - (ended ? 1 : 0));
}

std::vector<std::int32_t> bytes_as_tokens(const std::string& text) {
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string tokens_as_bytes(const std::vector<std::int32_t>& tokens) {
  std::string text;
  for (const std::int32_t t : tokens) text.push_back(static_cast<char>(t));
  return text;
}

int prompts_per_round(const Config& config) {
  return config.grpo.updates_per_rollout * config.train.batch_sequences / config.grpo.group_size;
}

Split split_of(const Config& config, bool train) {
  return train || config.evaluate.split == "train" ? Split::train : Split::held_out;
}

std::uint64_t first_problem(const Config& config, std::int64_t rollout) {
  const int rounds = config.grpo.dynamic_sampling ? config.grpo.sampling_rounds_max : 1;
  return static_cast<std::uint64_t>(rollout) * static_cast<std::uint64_t>(rounds * prompts_per_round(config));
}

}  // namespace troupe
