// What a run learns from. Stateless: a batch is a pure function of (configuration, step, microbatch); nothing is
// remembered between calls, so the loader's position is the step.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/data/tokenizer.h"

namespace troupe {

constexpr std::int32_t kNoTarget = -100;

// One microbatch. N = sequences * length rows, sequence-major.
struct Batch {
  std::int32_t sequences = 0, length = 0;
  std::vector<std::int32_t> ids;          // N
  std::vector<std::int32_t> targets;      // N: the token to predict at each row; kNoTarget: none
  std::vector<std::int32_t> mtp_targets;  // N: the token after it; kNoTarget: none
  std::vector<std::int32_t> positions;    // N: restart in each isolated document
  std::vector<std::int32_t> spans;        // S x 4: {first row, rows, first row, rows} of each isolated document
  std::int64_t target_count() const;
  std::int64_t mtp_target_count() const;
};

// targets[t] = labels[t+1] and mtp_targets[t] = labels[t+2] within a sequence; with isolated documents never across a
// boundary. `document_starts[b]`: first rows of the documents of sequence b (0 included). Labels are not shifted.
Batch make_batch(std::int32_t sequences, std::int32_t length, std::vector<std::int32_t> ids,
                 const std::vector<std::int32_t>& labels, const std::vector<std::vector<std::int32_t>>& document_starts,
                 bool isolate);

struct StepCounts {
  std::int64_t target_tokens = 0, mtp_target_tokens = 0, tokens = 0;
};

// Where data came from, for the checkpoint's manifest.
struct Provenance {
  std::string source, licence, sha256;
  std::int64_t bytes = 0;
  std::string note = {};  // what was left out of it; empty: nothing
};

class Corpus {
 public:
  virtual ~Corpus() = default;
  virtual Batch train(std::int64_t step, std::int32_t microbatch) const = 0;
  // Sums over the step's microbatches: the divisors of its losses.
  StepCounts counts(std::int64_t step, std::int32_t microbatches) const;
  // The held-out part, cut into microbatches of the training shape (the last may hold fewer sequences).
  virtual std::int32_t held_out_microbatches(std::int64_t tokens_max) const = 0;  // tokens_max 0: all
  virtual Batch held_out(std::int32_t microbatch) const = 0;
  virtual std::vector<Provenance> provenance() const = 0;
  virtual std::size_t bytes() const = 0;  // resident memory, for the plan
};

// The tokenizer of [data]. Throws Error: it has more tokens than model.vocab_size.
std::shared_ptr<const Tokenizer> open_tokenizer(const Config& config);
// The token that ends a document or an answer: what the tokenizer says, else model.eos_token_id.
std::int32_t end_token_of(const Config& config, const Tokenizer& tokenizer);

// Opens what [data] names. Throws Error with file and reason (missing, empty, too short, bad JSON with line number).
std::unique_ptr<Corpus> open_corpus(const Config& config);
// These files as held-out data (for `troupe eval RUN --files F`): all of a file that the model has never seen; of one
// that it was trained on (its sha256 is in `trained_on`) only the part that was held out.
std::unique_ptr<Corpus> open_evaluation_files(const Config& config, const std::vector<std::string>& files,
                                              const std::set<std::string>& trained_on);

}  // namespace troupe
