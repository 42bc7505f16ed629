// Sources: one file of text, of tokens or of JSONL documents, of conversations (chat_file.h), or generated problems, as
// numbered sequences. The law: a sequence is a pure function of the cut and its number; what a source keeps was made
// when it was opened.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "actors/config.h"
#include "actors/data/chat_file.h"
#include "actors/data/cut.h"
#include "actors/data/json_lines.h"
#include "actors/data/packing.h"
#include "actors/data/token_file.h"
#include "actors/data/tokenizer.h"
#include "actors/mapped_file.h"
#include "actors/tasks/task_text.h"

namespace troupe {

// Every source has the same five functions. train(sequence, ordinal): `sequence` counts over the whole corpus,
// `ordinal` over the sequences that fell to this source. A text's tokens are its bytes.
class TextFile {
 public:
  TextFile(const std::string& path, const Cut& cut);
  std::int64_t training_tokens() const { return training_; }
  std::int64_t held_out_sequences() const { return held_out_count_; }
  std::size_t bytes() const { return 0; }
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;  // a window that starts anywhere
  Sequence held_out(std::int64_t index) const;                        // windows that don't overlap, to the last byte

 private:
  Sequence window(std::uint64_t begin) const;

  Cut cut_;
  std::unique_ptr<MappedFile> file_;
  std::int64_t training_ = 0, held_out_count_ = 0;
};

// Windows as of a text. A window begins a document, and so does every document that begins in it.
class TokenFile {
 public:
  // Throws Error: made by another tokenizer than the run's, or with another end token.
  TokenFile(const std::string& path, const Cut& cut);
  std::int64_t training_tokens() const { return training_; }
  std::int64_t held_out_sequences() const { return held_out_count_; }
  std::size_t bytes() const { return 0; }
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;
  Sequence held_out(std::int64_t index) const;

 private:
  Sequence window(std::uint64_t begin) const;

  Cut cut_;
  std::unique_ptr<MappedTokens> tokens_;
  std::int64_t training_ = 0, held_out_count_ = 0;
};

// Documents are cut into pieces of at most one sequence. Pieces are shuffled and packed once; every epoch goes through
// the packed sequences in an order of its own.
class DocumentFile {
 public:
  DocumentFile(const std::string& path, const std::string& text_key, const Cut& cut);
  std::int64_t training_tokens() const { return training_.tokens; }
  std::int64_t held_out_sequences() const { return held_out_.sequences(); }
  std::size_t bytes() const;
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;
  Sequence held_out(std::int64_t index) const;  // pieces in the file's order

 private:
  struct Document {
    std::uint64_t begin = 0;  // of the line
    std::uint32_t line_bytes = 0, tokens_count = 0;
    std::uint64_t first_token = 0;  // among those that are kept
  };
  struct Piece {
    std::uint32_t document = 0, part = 0;
  };
  using Pieces = Packed<Piece>;

  void index_documents();
  std::vector<std::int32_t> tokens_of(const Document& document) const;
  std::int32_t size_of(const Piece& piece) const;
  Pieces pack(std::size_t first, std::size_t end, bool shuffle) const;
  Sequence build(const Pieces& packed, std::uint64_t index) const;

  std::string path_, text_key_;
  Cut cut_;
  std::unique_ptr<MappedFile> file_;
  std::vector<Document> documents_;
  std::vector<std::int32_t> kept_;  // all tokens, unless they are bytes, which are read again from the file
  Pieces training_, held_out_;
};

// Targets on the worked solutions only; whole problems, as many as fit.
class ArithmeticStream {
 public:
  ArithmeticStream(const DataConfig& config, const Cut& cut);
  std::int64_t training_tokens() const { return 1; }
  std::int64_t held_out_sequences() const { return static_cast<std::int64_t>(held_out_starts_.size()) - 1; }
  std::size_t bytes() const { return held_out_starts_.capacity() * sizeof(std::int64_t); }
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;
  Sequence held_out(std::int64_t index) const;  // the first kHeldOutProblems held-out problems

 private:
  static constexpr std::uint64_t kHeldOutProblems = 2000;

  DataConfig config_;
  Cut cut_;
  std::vector<std::int64_t> held_out_starts_;
};

// Problems of [task] with their solutions, for a supervised start: targets on the solution and its end; whole problems,
// as many as fit. One that is longer than a sequence is left out; note() tells what is known of it.
class TaskStream {
 public:
  TaskStream(const Config& config, const Cut& cut);
  std::int64_t training_tokens() const { return 1; }
  std::int64_t held_out_sequences() const { return static_cast<std::int64_t>(held_out_.size()); }
  std::size_t bytes() const;
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;
  Sequence held_out(std::int64_t index) const { return held_out_[static_cast<std::size_t>(index)]; }
  // Questions of files without room, and how many of the held-out problems are too long, in a sentence; empty: none.
  std::string note() const;
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tasks_->text.tokenizer(); }

 private:
  static constexpr std::uint64_t kHeldOutProblems = 512;

  struct Looked {
    std::uint64_t at = 0, too_long = 0;  // problems; those of them that are longer than a sequence
  };
  // Problems from this one on, until one doesn't fit or `count` are looked at.
  Sequence pack(Split split, std::uint64_t first, std::uint64_t count, Looked& looked) const;

  std::shared_ptr<const TaskSet> tasks_;
  Cut cut_;
  std::vector<Sequence> held_out_;
  std::uint64_t held_out_too_long_ = 0;
};

// Every token of the vocabulary as likely as any other: for measuring, there is nothing to learn.
class RandomStream {
 public:
  RandomStream(int vocabulary, const Cut& cut) : vocabulary_(static_cast<std::uint64_t>(vocabulary)), cut_(cut) {}
  std::int64_t training_tokens() const { return 1; }
  std::int64_t held_out_sequences() const { return kHeldOutSequences; }
  std::size_t bytes() const { return 0; }
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;
  Sequence held_out(std::int64_t index) const;

 private:
  static constexpr std::int64_t kHeldOutSequences = 64;

  Sequence draw(const char* purpose, std::int64_t number) const;

  std::uint64_t vocabulary_;
  Cut cut_;
};

using Source = std::variant<TextFile, TokenFile, DocumentFile, ChatFile, ArithmeticStream, TaskStream, RandomStream>;

}  // namespace troupe
