// Text and tokens of prompts and answers, for whoever samples, judges and trains on them: one place, so that all agree.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

std::vector<std::int32_t> bytes_as_tokens(const std::string& text);
std::string tokens_as_bytes(const std::vector<std::int32_t>& tokens);

// A task's prompt as tokens; the token that ends an answer; an answer's text without that token.
std::vector<std::int32_t> prompt_tokens(const Config& config, const std::string& prompt);
std::int32_t end_token(const Config& config);
std::string answer_text(const Config& config, const std::vector<std::int32_t>& tokens);

// Where the problems of a rollout begin in the stream of training problems.
std::uint64_t first_problem(const Config& config, std::int64_t rollout);
// Prompts of one round of a rollout: updates x sequences of a step / samples of a prompt.
int prompts_per_round(const Config& config);

}  // namespace troupe
