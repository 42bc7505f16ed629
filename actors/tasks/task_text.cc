#include "actors/tasks/task_text.h"

#include <algorithm>
#include <array>

#include "actors/data/corpus.h"

namespace troupe {

namespace {

// Of one token a byte a task may need fewer than there are: it is written in ASCII.
std::shared_ptr<const Tokenizer> tokenizer_of(const Config& config) {
  return tokenizer_file_of(config.data.tokenizer).empty() ? open_tokenizer("") : open_tokenizer(config);
}

std::int32_t end_of(const Config& config, const Tokenizer& tokenizer) {
  if (tokenizer.is_bytes() && config.data.chat_template == "plain") return kEndOfAnswer;
  return end_token_of(config, tokenizer);
}

// Who only answers may be as long as the model reads; who is asked for no answer needs no room for one.
std::size_t room_of(const Config& config) {
  const bool is_asked = config.has_rollouts() || config.has_answers() || config.kind == "evaluate";
  const int all = config.kind == "evaluate" ? config.model.max_position_embeddings : config.generate_length();
  return static_cast<std::size_t>(std::max(0, all - std::max(1, is_asked ? config.grpo.completion_max : 0)));
}

ChatMessage user(const std::string& text) { return {Speaker::user, text}; }

}  // namespace

TaskText::TaskText(const Config& config)
    : tokenizer_(tokenizer_of(config)),
      shape_(config.data.chat_template, tokenizer_, end_of(config, *tokenizer_)),
      room_(room_of(config)) {}

std::vector<std::int32_t> TaskText::prompt(const TaskProblem& problem) const {
  return shape_.prompt(std::array{user(problem.prompt)}).ids;
}

bool TaskText::has_room(const TaskProblem& problem) const { return prompt(problem).size() <= room_; }

ChatTokens TaskText::example(const TaskProblem& problem) const {
  return shape_.example(std::array{user(problem.prompt), ChatMessage{Speaker::assistant, problem.solution}});
}

std::string TaskText::answer(const std::vector<std::int32_t>& tokens) const {
  const bool ended = !tokens.empty() && tokens.back() == end_token();
  return std::string(shape_.prefill()) + tokenizer_->decode(tokens.data(), tokens.size() - (ended ? 1 : 0));
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
