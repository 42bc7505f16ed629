#include "actors/data/text_tokens.h"

#include "actors/tasks/task.h"

namespace troupe {

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

std::vector<std::int32_t> prompt_tokens(const Config&, const std::string& prompt) { return bytes_as_tokens(prompt); }

std::int32_t end_token(const Config&) { return kEndOfAnswer; }

std::string answer_text(const Config& config, const std::vector<std::int32_t>& tokens) {
  std::vector<std::int32_t> text = tokens;
  if (!text.empty() && text.back() == end_token(config)) text.pop_back();
  return tokens_as_bytes(text);
}

int prompts_per_round(const Config& config) {
  return config.grpo.updates_per_rollout * config.train.batch_sequences / config.grpo.group_size;
}

std::uint64_t first_problem(const Config& config, std::int64_t rollout) {
  const int rounds = config.grpo.dynamic_sampling ? config.grpo.sampling_rounds_max : 1;
  return static_cast<std::uint64_t>(rollout) * static_cast<std::uint64_t>(rounds * prompts_per_round(config));
}

}  // namespace troupe
