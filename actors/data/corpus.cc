// The corpus: files (or generated problems) as sequences. The law: what sequence number q holds is a pure function of
// the configuration and q = step * batch_sequences + row of the global batch; `microbatches` only cuts, it never
// changes.
#include "actors/data/corpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "actors/checkpoint/manifest.h"
#include "actors/data/packing.h"
#include "actors/data/sources.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

// Which source a sequence comes from: a pattern that repeats, shuffled once, in which each source has its share
// exactly.
class Mixture {
 public:
  Mixture(const std::vector<double>& weights, const std::vector<std::string>& names, std::uint64_t seed) {
    double sum = 0, reached = 0;
    for (const double weight : weights) {
      if (!(std::isfinite(weight) && weight >= 0)) throw Error("data.weights has {}, must be 0 or more", weight);
      sum += weight;
    }
    if (!(sum > 0)) throw Error("data.weights are all 0: give one file a weight");
    std::vector<std::uint32_t> sources;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      reached += weights[i];
      const auto end = static_cast<std::size_t>(std::lround(reached / sum * static_cast<double>(kPattern)));
      if (weights[i] > 0 && end == sources.size()) {
        throw Error("data.weights: {} has {} of {}, less than one sequence in {}", names[i], weights[i], sum, kPattern);
      }
      share_.push_back(static_cast<std::int64_t>(end - sources.size()));
      sources.resize(end, static_cast<std::uint32_t>(i));
    }
    std::vector<std::int64_t> seen(weights.size(), 0);
    const std::uint64_t key = random_key(seed, "data/mixture");
    for (std::size_t i = 0; i < kPattern; ++i) {
      const std::uint32_t source = sources[random_permute(i, kPattern, key)];
      pattern_.push_back({source, seen[source]++});
    }
  }
  // Sequence q is number `ordinal` of source `source`.
  std::pair<std::size_t, std::int64_t> at(std::int64_t sequence) const {
    const Slot& slot = pattern_[static_cast<std::size_t>(sequence) % kPattern];
    return {slot.source, sequence / static_cast<std::int64_t>(kPattern) * share_[slot.source] + slot.number};
  }
  std::size_t bytes() const { return pattern_.capacity() * sizeof(Slot); }

 private:
  static constexpr std::size_t kPattern = 4096;
  struct Slot {
    std::uint32_t source = 0;
    std::int64_t number = 0;
  };
  std::vector<std::int64_t> share_;
  std::vector<Slot> pattern_;
};

class MixedCorpus final : public Corpus {
 public:
  // tokenizer: null where there is none.
  MixedCorpus(const Config& config, std::vector<Source> sources, Mixture mixture, std::vector<Provenance> provenance,
              std::shared_ptr<const Tokenizer> tokenizer)
      : config_(config),
        sources_(std::move(sources)),
        mixture_(std::move(mixture)),
        provenance_(std::move(provenance)),
        tokenizer_(std::move(tokenizer)) {
    if (tokenizer_ && !tokenizer_->is_bytes()) {
      provenance_.push_back({.source = tokenizer_->path(),
                             .licence = {},
                             .sha256 = tokenizer_->digest(),
                             .bytes = static_cast<std::int64_t>(MappedFile(tokenizer_->path()).size())});
    }
    for (const Source& source : sources_) {
      held_out_total_ += std::visit([](const auto& s) { return s.held_out_sequences(); }, source);
    }
  }

  Batch train(std::int64_t step, std::int32_t microbatch) const override {
    CHECK(step >= 0 && microbatch >= 0 && microbatch < config_.train.microbatches, "step {} microbatch {}", step,
          microbatch);
    const std::int64_t rows = config_.microbatch_sequences();
    const std::int64_t first = step * config_.train.batch_sequences + microbatch * rows;
    std::vector<Sequence> sequences;
    for (std::int64_t sequence = first; sequence < first + rows; ++sequence) {
      const auto [source, ordinal] = mixture_.at(sequence);
      sequences.push_back(
          std::visit([&, n = ordinal](const auto& s) { return s.train(sequence, n); }, sources_[source]));
    }
    return finish(sequences);
  }

  // A limit is kept to whole microbatches, at least one.
  std::int32_t held_out_microbatches(std::int64_t tokens_max) const override {
    const std::int64_t rows = config_.microbatch_sequences();
    const std::int64_t all = (held_out_total_ + rows - 1) / rows;
    const std::int64_t wanted =
        tokens_max > 0 ? std::max<std::int64_t>(1, tokens_max / config_.microbatch_rows()) : all;
    return static_cast<std::int32_t>(std::min(all, wanted));
  }

  Batch held_out(std::int32_t microbatch) const override {
    const std::int64_t rows = config_.microbatch_sequences(), first = microbatch * rows;
    CHECK(first >= 0 && first < held_out_total_, "held-out microbatch {} of {} sequences", microbatch, held_out_total_);
    std::vector<Sequence> sequences;
    for (std::int64_t index = first; index < std::min(first + rows, held_out_total_); ++index) {
      std::int64_t within = index;
      for (const Source& source : sources_) {
        const std::int64_t count = std::visit([](const auto& s) { return s.held_out_sequences(); }, source);
        if (within < count) {
          sequences.push_back(std::visit([&](const auto& s) { return s.held_out(within); }, source));
          break;
        }
        within -= count;
      }
    }
    return finish(sequences);
  }

  std::vector<Provenance> provenance() const override {
    std::vector<Provenance> told = provenance_;
    for (Provenance& one : told) {
      if (one.sha256.empty()) one.sha256 = sha256_file(one.source);
    }
    return told;
  }

  std::size_t bytes() const override {
    std::size_t sum = mixture_.bytes() + (tokenizer_ ? tokenizer_->bytes() : 0);
    for (const Source& source : sources_) sum += std::visit([](const auto& s) { return s.bytes(); }, source);
    return sum;
  }

 private:
  // Examples and problems always stand apart, as they do when an answer is sampled.
  Batch finish(const std::vector<Sequence>& sequences) const {
    const DataConfig& data = config_.data;
    return batch_of(sequences, config_.train.sequence_length,
                    data.mask_documents || data.kind == "chat" || data.kind == "task");
  }

  Config config_;
  std::vector<Source> sources_;
  Mixture mixture_;
  std::vector<Provenance> provenance_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int64_t held_out_total_ = 0;
};

// A .jsonl file holds documents, a .tokens file tokens and a .txt file text; any other is what data.kind says.
bool holds_documents(const DataConfig& data, const std::string& path) {
  if (path.ends_with(".jsonl")) return true;
  return data.kind == "jsonl" && !path.ends_with(".txt");
}

Source open_source(const DataConfig& data, const std::string& path, const Cut& cut) {
  if (data.kind == "chat") {
    if (path.ends_with(".tokens") || path.ends_with(".txt"))
      throw Error("{} holds no conversations: data.kind = \"chat\" reads jsonl of messages, or prompt and completion",
                  path);
    return ChatFile(path, ChatTemplate(data.chat_template, cut.tokenizer, cut.eos), data.long_examples, cut);
  }
  if (path.ends_with(".tokens")) return TokenFile(path, cut);
  if (holds_documents(data, path)) return DocumentFile(path, data.text_key, cut);
  return TextFile(path, cut);
}

// held_out[i]: the part of files[i] that is not for training.
std::unique_ptr<Corpus> open_files(const Config& config, const std::vector<std::string>& files,
                                   const std::vector<double>& held_out, bool for_training) {
  const DataConfig& data = config.data;
  if (files.empty()) throw Error("data.files is empty: name at least one file");
  const auto tokenizer = open_tokenizer(config);
  std::vector<Source> sources;
  std::vector<double> sizes;
  std::vector<Provenance> provenance;
  for (const std::string& path : files) {
    const Cut cut{.length = config.train.sequence_length,
                  .seed = config.train.seed,
                  .number = sources.size(),
                  .held_out = held_out[sources.size()],
                  .eos = end_token_of(config, *tokenizer),
                  .tokenizer = tokenizer};
    sources.push_back(open_source(data, path, cut));
    const auto* chats = std::get_if<ChatFile>(&sources.back());
    const std::int64_t tokens = std::visit([](const auto& source) { return source.training_tokens(); }, sources.back());
    sizes.push_back(static_cast<double>(std::max<std::int64_t>(tokens, 1)));
    provenance.push_back({.source = path,
                          .licence = data.licence,
                          .sha256 = {},
                          .bytes = static_cast<std::int64_t>(MappedFile(path).size()),
                          .note = chats != nullptr ? chats->note() : ""});
  }
  const bool has_weights = !data.weights.empty() && for_training;
  if (has_weights && data.weights.size() != files.size()) {
    throw Error("data.weights has {} numbers for {} files", data.weights.size(), files.size());
  }
  Mixture mixture(has_weights ? data.weights : sizes, files, config.train.seed);
  return std::make_unique<MixedCorpus>(config, std::move(sources), std::move(mixture), std::move(provenance),
                                       tokenizer);
}

std::unique_ptr<Corpus> open_arithmetic(const Config& config) {
  const DataConfig& data = config.data;
  constexpr int kHighest = '>';
  if (config.model.vocab_size <= kHighest) {
    throw Error("model.vocab_size is {}, must be {} or more: problems are written in ascii", config.model.vocab_size,
                kHighest + 1);
  }
  const Cut cut{.length = config.train.sequence_length,
                .seed = config.train.seed,
                .number = 0,
                .held_out = 0,
                .eos = config.model.eos_token_id,
                .tokenizer = nullptr};
  std::vector<Source> sources;
  sources.emplace_back(std::in_place_type<ArithmeticStream>, data, cut);
  const std::string name = fmt::format("generated arithmetic, operations {}, operands of up to {} digits, seed {}",
                                       data.arithmetic_operations, data.arithmetic_digits, config.train.seed);
  std::vector<Provenance> provenance{{.source = name, .licence = "generated", .sha256 = sha256(name), .bytes = 0}};
  return std::make_unique<MixedCorpus>(config, std::move(sources), Mixture({1}, {name}, config.train.seed),
                                       std::move(provenance), nullptr);
}

std::unique_ptr<Corpus> open_random(const Config& config) {
  const Cut cut{.length = config.train.sequence_length, .seed = config.train.seed};
  std::vector<Source> sources;
  sources.emplace_back(std::in_place_type<RandomStream>, config.model.vocab_size, cut);
  const std::string name = fmt::format("random tokens below {}, seed {}", config.model.vocab_size, config.train.seed);
  std::vector<Provenance> provenance{{.source = name, .licence = "generated", .sha256 = sha256(name), .bytes = 0}};
  return std::make_unique<MixedCorpus>(config, std::move(sources), Mixture({1}, {name}, config.train.seed),
                                       std::move(provenance), nullptr);
}

std::unique_ptr<Corpus> open_tasks(const Config& config) {
  const Cut cut{.length = config.train.sequence_length,
                .seed = config.train.seed,
                .number = 0,
                .held_out = 0,
                .eos = config.model.eos_token_id};
  std::vector<Source> sources;
  sources.emplace_back(std::in_place_type<TaskStream>, config, cut);
  const auto& stream = std::get<TaskStream>(sources.back());
  const auto tokenizer = stream.tokenizer();
  const TaskConfig& task = config.task;
  const std::string name = fmt::format("solutions of {}, levels {} to {}, seed {}", fmt::join(task.names, ", "),
                                       task.level_min, task.level_max, config.train.seed);
  std::vector<Provenance> provenance{{.source = name,
                                      .licence = task.files.empty() ? "generated" : config.data.licence,
                                      .sha256 = sha256(name),
                                      .bytes = 0,
                                      .note = stream.note()}};
  for (const std::string& path : task.files) {
    provenance.push_back({.source = path,
                          .licence = config.data.licence,
                          .sha256 = {},
                          .bytes = static_cast<std::int64_t>(MappedFile(path).size())});
  }
  return std::make_unique<MixedCorpus>(config, std::move(sources), Mixture({1}, {name}, config.train.seed),
                                       std::move(provenance), tokenizer);
}

}  // namespace

StepCounts Corpus::counts(std::int64_t step, std::int32_t microbatches) const {
  StepCounts counts;
  for (std::int32_t microbatch = 0; microbatch < microbatches; ++microbatch) {
    const Batch batch = train(step, microbatch);
    counts.target_tokens += batch.target_count();
    counts.mtp_target_tokens += batch.mtp_target_count();
    counts.tokens += static_cast<std::int64_t>(batch.ids.size());
  }
  return counts;
}

std::shared_ptr<const Tokenizer> open_tokenizer(const Config& config) {
  auto tokenizer = open_tokenizer(config.data.tokenizer);
  if (tokenizer->vocabulary() > config.model.vocab_size) {
    throw Error("model.vocab_size is {}, must be {} or more: so many tokens has data.tokenizer = \"{}\"",
                config.model.vocab_size, tokenizer->vocabulary(), config.data.tokenizer);
  }
  return tokenizer;
}

std::int32_t end_token_of(const Config& config, const Tokenizer& tokenizer) {
  return tokenizer.end_token().value_or(config.model.eos_token_id);
}

std::unique_ptr<Corpus> open_corpus(const Config& config) {
  if (config.data.kind == "arithmetic") return open_arithmetic(config);
  if (config.data.kind == "task") return open_tasks(config);
  if (config.data.kind == "random") return open_random(config);
  if (config.data.kind != "text" && config.data.kind != "jsonl" && config.data.kind != "chat") {
    throw Error("data.kind is {}, must be text, jsonl, chat, arithmetic, task or random", config.data.kind);
  }
  if (!(config.data.held_out >= 0 && config.data.held_out < 1)) {
    throw Error("data.held_out is {}, must be at least 0 and below 1", config.data.held_out);
  }
  return open_files(config, config.data.files, std::vector<double>(config.data.files.size(), config.data.held_out),
                    true);
}

std::unique_ptr<Corpus> open_evaluation_files(const Config& config, const std::vector<std::string>& files,
                                              const std::set<std::string>& trained_on) {
  std::vector<double> held_out;
  for (const std::string& file : files) {
    const bool seen = !trained_on.empty() && trained_on.contains(sha256_file(file));
    if (seen && config.data.held_out <= 0)
      throw Error("{}: the model was trained on all of it (data.held_out was 0); nothing of it can be held out", file);
    held_out.push_back(seen ? config.data.held_out : 1);
  }
  return open_files(config, files, held_out, false);
}

}  // namespace troupe
