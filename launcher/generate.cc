// `troupe generate`: the same actors, with a key-value cache.
#include "launcher/generate.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/data/chat.h"
#include "actors/data/corpus.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/run_config.h"
#include "launcher/tools.h"
#include "launcher/world.h"

namespace troupe {

namespace {
constexpr int kSlotRowsMin = 64;  // sequences that may share a batch

// How prompts become tokens, and what ends an answer.
struct Prompting {
  const GenerateOptions& options;
  const Config& config;
  std::shared_ptr<const Tokenizer> tokenizer;

  ChatTemplate chat() const { return {config.data.chat_template, tokenizer, end_token_of(config, *tokenizer)}; }
  std::vector<std::int32_t> tokens_of(const std::string& prompt) const;
  std::int32_t stop_token() const;
};

std::vector<std::int32_t> Prompting::tokens_of(const std::string& prompt) const {
  if (prompt.empty()) throw Error("generate: an empty prompt; give at least one character");
  const ChatMessage message{Speaker::user, prompt};
  std::vector<std::int32_t> tokens =
      options.chat ? chat().prompt(std::span(&message, 1)).ids : tokenizer->encode_with_special(prompt);
  for (const std::int32_t token : tokens) {
    if (token >= config.model.vocab_size)
      throw Error("generate: the prompt has byte {}, this model's vocabulary ends at {}", token,
                  config.model.vocab_size - 1);
  }
  return tokens;
}

std::int32_t Prompting::stop_token() const {
  if (options.stop.empty() && options.chat) return chat().end_token();
  if (options.stop.empty()) return tokenizer->is_bytes() ? -1 : end_token_of(config, *tokenizer);
  const std::vector<std::int32_t> tokens = tokenizer->encode_with_special(options.stop);
  if (tokens.size() != 1) throw Error("generate: --stop \"{}\" is {} tokens, must be one", options.stop, tokens.size());
  return tokens[0];
}

}  // namespace

void fit_generation(Config& config, std::size_t prompts, std::size_t longest, int tokens_max) {
  const int wanted = static_cast<int>(longest) + tokens_max;
  if (wanted > config.generate_length())
    config.generate.length_max = std::min(wanted, config.model.max_position_embeddings);
  config.layout.slots = config.train.batch_sequences = config.train.microbatches = std::max(1, config.device.threads);
  config.train.gradient_lanes = config.layout.replicas = 1;
  config.train.sequence_length = std::max({config.train.sequence_length, static_cast<int>(longest), kSlotRowsMin});
  config.generate.sequences_max = std::min<int>(config.generate.sequences_max, static_cast<int>(prompts));
}

int generate(const GenerateOptions& options) {
  Loaded loaded = load_model(options.run, options.sets);
  Config& config = loaded.config;
  if (options.prompts.empty())
    throw Error("generate: no prompt; give one with --prompt \"...\" (several may be given)");
  if (!(options.temperature >= 0))
    throw Error("generate: --temperature is {}, must be 0 or more (0: greedy)", options.temperature);
  if (!(options.top_p > 0 && options.top_p <= 1))
    throw Error("generate: --top-p is {}, must be above 0 and at most 1", options.top_p);
  start_log("troupe", "", LogLevel::warning);
  // A model of sums knows fewer tokens than there are bytes.
  const auto tokenizer = tokenizer_file_of(config.data.tokenizer).empty() ? open_tokenizer("") : open_tokenizer(config);
  const Prompting prompting{options, config, tokenizer};
  GenerationRequest request;
  std::size_t longest = 0;
  for (const std::string& prompt : options.prompts) {
    std::vector<std::int32_t> tokens = prompting.tokens_of(prompt);
    longest = std::max(longest, tokens.size());
    request.prompts.push_back(std::move(tokens));
  }
  fit_generation(config, request.prompts.size(), longest, options.tokens_max);
  if (static_cast<int>(longest) >= config.generate_length())
    throw Error("generate: the prompt has {} tokens, this model reads at most {} (model.max_position_embeddings)",
                longest, config.model.max_position_embeddings - 1);
  request.temperature = static_cast<float>(options.temperature);
  request.top_p = static_cast<float>(options.top_p);
  request.seed = options.seed;
  request.tokens_max = options.tokens_max;
  request.stop_token = prompting.stop_token();
  GenerationResult result;
  WorldOptions world_options;
  world_options.mode = RunMode::generate;
  world_options.request = request;
  world_options.sink = &result;
  World world(config, world_options);
  Recover begin;
  begin.path = loaded.checkpoint;
  begin.weights_only = true;
  world.recover(begin);
  world.run([](const Report&) {}, [&] { return result.done; });
  for (std::size_t i = 0; i < options.prompts.size(); ++i) {
    std::fputs(options.prompts[i].c_str(), stdout);
    std::vector<std::int32_t>& written = result.tokens[i];
    if (options.stop.empty() && !written.empty() && written.back() == request.stop_token) written.pop_back();
    const std::string text = tokenizer->decode(written);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fputc('\n', stdout);
  }
  return 0;
}

}  // namespace troupe
