// Sources: reading and cutting. Files are memory-mapped; a JSONL file is parsed once to find its documents, and with one
// token a byte each document again when it is read; other tokens are kept.
#include "actors/data/sources.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <span>

#include "actors/data/arithmetic.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

// Units are bytes or tokens; the first of them are for training.
void check_part(const std::string& path, const char* unit, std::size_t count, std::int64_t training, const Cut& cut) {
  const std::int64_t held_out = static_cast<std::int64_t>(count) - training;
  if (cut.held_out < 1 && training < cut.length) {
    throw Error("{} has {} {}, {} of them for training: too few for a sequence of {}", path, count, unit, training,
                cut.length);
  }
  if (cut.held_out > 0 && held_out < 2) {
    throw Error("{} has {} {}, {} of them held out: too few to measure a loss", path, count, unit, held_out);
  }
}

std::uint64_t window_of(const Cut& cut, std::int64_t training, std::int64_t sequence) {
  CHECK(training >= cut.length, "no training part was opened");
  const auto starts = static_cast<std::uint64_t>(training - cut.length + 1);
  return random_below(starts, cut.key("window"), static_cast<std::uint64_t>(sequence));
}

std::int64_t windows_of(std::int64_t count, const Cut& cut) { return (count + cut.length - 1) / cut.length; }

}  // namespace

// ---- Plain text -----------------------------------------------------------------------------------------------------
TextFile::TextFile(const std::string& path, const Cut& cut) : cut_(cut), file_(std::make_unique<MappedFile>(path)) {
  if (cut.tokenizer && !cut.tokenizer->is_bytes()) {
    throw Error(
        "{} is text, and data.tokenizer is {}: make tokens of it first with troupe tokenize --tokenizer {} {} --out "
        "FILE.tokens, and name that file",
        path, cut.tokenizer->path(), cut.tokenizer->path(), path);
  }
  training_ = cut.training_part(file_->size());
  check_part(path, "bytes", file_->size(), training_, cut);
  held_out_count_ = windows_of(static_cast<std::int64_t>(file_->size()) - training_, cut);
}

Sequence TextFile::train(std::int64_t sequence, std::int64_t /*ordinal*/) const {
  return window(window_of(cut_, training_, sequence));
}

Sequence TextFile::held_out(std::int64_t index) const {
  return window(static_cast<std::uint64_t>(training_ + index * cut_.length));
}

Sequence TextFile::window(std::uint64_t begin) const {
  Sequence sequence;
  sequence.start_document();
  sequence.append(file_->text().substr(begin, static_cast<std::size_t>(cut_.length)), true);
  sequence.pad(cut_.length, cut_.eos);  // the last held-out window
  return sequence;
}

// ---- Tokens ---------------------------------------------------------------------------------------------------------
TokenFile::TokenFile(const std::string& path, const Cut& cut)
    : cut_(cut), tokens_(std::make_unique<MappedTokens>(path)) {
  if (cut.tokenizer && tokens_->tokenizer_sha256() != cut.tokenizer->digest()) {
    throw Error(
        "{} was made by another tokenizer (sha256 {}) than data.tokenizer ({}, sha256 {}): name the one that made it, "
        "or make it again",
        path, tokens_->tokenizer_sha256(), cut.tokenizer->is_bytes() ? "bytes" : cut.tokenizer->path(),
        cut.tokenizer->digest());
  }
  if (tokens_->end_token() >= 0 && tokens_->end_token() != cut.eos) {
    throw Error(
        "{} ends its documents with token {}, this run with {} (eos_token of tokenizer_config.json, else "
        "model.eos_token_id): give the run the same, or make the file again with troupe tokenize --eos",
        path, tokens_->end_token(), cut.eos);
  }
  training_ = cut.training_part(tokens_->size());
  check_part(path, "tokens", tokens_->size(), training_, cut);
  held_out_count_ = windows_of(static_cast<std::int64_t>(tokens_->size()) - training_, cut);
}

Sequence TokenFile::train(std::int64_t sequence, std::int64_t /*ordinal*/) const {
  return window(window_of(cut_, training_, sequence));
}

Sequence TokenFile::held_out(std::int64_t index) const {
  return window(static_cast<std::uint64_t>(training_ + index * cut_.length));
}

Sequence TokenFile::window(std::uint64_t begin) const {
  Sequence sequence;
  const std::uint64_t end = std::min<std::uint64_t>(begin + static_cast<std::uint64_t>(cut_.length), tokens_->size());
  std::size_t document = tokens_->document_from(begin + 1);
  sequence.start_document();
  for (std::uint64_t at = begin; at < end; ++at) {
    if (document < tokens_->documents() && tokens_->document_start(document) == at) {
      sequence.start_document();
      ++document;
    }
    sequence.append(tokens_->at(at), true);
  }
  sequence.pad(cut_.length, cut_.eos);  // the last held-out window
  return sequence;
}

// ---- JSONL ----------------------------------------------------------------------------------------------------------
DocumentFile::DocumentFile(const std::string& path, const std::string& text_key, const Cut& cut)
    : path_(path), text_key_(text_key), cut_(cut), file_(std::make_unique<MappedFile>(path)) {
  index_documents();
  const auto training = static_cast<std::size_t>(cut.training_part(documents_.size()));
  check_parts(path, "documents", documents_.size(), training, cut);
  training_ = pack(0, training, true);
  held_out_ = pack(training, documents_.size(), false);
}

std::size_t DocumentFile::bytes() const {
  return documents_.capacity() * sizeof(Document) + kept_.capacity() * sizeof(std::int32_t) + training_.bytes() +
         held_out_.bytes();
}

Sequence DocumentFile::train(std::int64_t /*sequence*/, std::int64_t ordinal) const {
  return build(training_, place_in_epoch(cut_, ordinal, training_.sequences()));
}

Sequence DocumentFile::held_out(std::int64_t index) const {
  return build(held_out_, static_cast<std::uint64_t>(index));
}

void DocumentFile::index_documents() {
  const bool is_bytes = cut_.tokenizer->is_bytes();
  for_each_json_line(file_->text(), [&](const JsonLine& line) {
    const std::string text = text_of_json_line(path_, line, text_key_);
    if (line.text.size() >= (std::size_t{1} << 31)) {
      throw Error("{}:{}: a document of {} bytes is too long", path_, line.number, line.text.size());
    }
    Document document{.begin = static_cast<std::uint64_t>(line.text.data() - file_->text().data()),
                      .line_bytes = static_cast<std::uint32_t>(line.text.size()),
                      .tokens_count = static_cast<std::uint32_t>(text.size()),
                      .first_token = kept_.size()};
    if (!is_bytes) {
      const std::vector<std::int32_t> tokens = cut_.tokenizer->encode(text);
      document.tokens_count = static_cast<std::uint32_t>(tokens.size());
      kept_.insert(kept_.end(), tokens.begin(), tokens.end());
    }
    documents_.push_back(document);
  });
  if (documents_.empty()) throw Error("{} ({} bytes) holds no documents", path_, file_->size());
}

// Without the end token.
std::vector<std::int32_t> DocumentFile::tokens_of(const Document& document) const {
  if (!cut_.tokenizer->is_bytes()) {
    const auto begin = kept_.begin() + static_cast<std::ptrdiff_t>(document.first_token);
    return {begin, begin + document.tokens_count};
  }
  const JsonLine line{file_->text().substr(document.begin, document.line_bytes), 0};
  return cut_.tokenizer->encode(text_of_json_line(path_, line, text_key_));
}

// The document's tokens and its end token, as far as they fall to this piece.
std::int32_t DocumentFile::size_of(const Piece& piece) const {
  const std::int64_t all = std::int64_t{documents_[piece.document].tokens_count} + 1;
  return static_cast<std::int32_t>(std::min<std::int64_t>(all - std::int64_t{piece.part} * cut_.length, cut_.length));
}

DocumentFile::Pieces DocumentFile::pack(std::size_t first, std::size_t end, bool shuffle) const {
  std::vector<Piece> pieces;
  for (std::size_t document = first; document < end; ++document) {
    const std::int64_t tokens = std::int64_t{documents_[document].tokens_count} + 1;
    for (std::int64_t part = 0; part * cut_.length < tokens; ++part) {
      pieces.push_back({static_cast<std::uint32_t>(document), static_cast<std::uint32_t>(part)});
    }
  }
  return pack_items(pieces, shuffle ? std::optional(cut_.key("documents")) : std::nullopt, cut_.length,
                    [&](const Piece& piece) { return size_of(piece); });
}

Sequence DocumentFile::build(const Pieces& packed, std::uint64_t index) const {
  Sequence sequence;
  for (std::int64_t i = packed.starts[index]; i < packed.starts[index + 1]; ++i) {
    const Piece& piece = packed.items[static_cast<std::size_t>(i)];
    const std::vector<std::int32_t> all = tokens_of(documents_[piece.document]);
    const std::size_t begin = std::size_t{piece.part} * static_cast<std::size_t>(cut_.length);
    const auto size = static_cast<std::size_t>(size_of(piece));
    sequence.start_document();
    sequence.append(std::span(all).subspan(begin, std::min(size, all.size() - begin)), true);
    if (begin + size > all.size()) sequence.append(cut_.eos, true);
  }
  sequence.pad(cut_.length, cut_.eos);
  return sequence;
}

// ---- Arithmetic -----------------------------------------------------------------------------------------------------
namespace {

std::int32_t size_of(const Problem& problem) {
  return static_cast<std::int32_t>(problem.prompt.size() + problem.solution.size());
}

void append_problem(Sequence& sequence, const Problem& problem) {
  sequence.start_document();
  sequence.append(problem.prompt, false);
  sequence.append(problem.solution, true);
}

}  // namespace

ArithmeticStream::ArithmeticStream(const DataConfig& config, const Cut& cut) : config_(config), cut_(cut) {
  if (config.arithmetic_digits < 1 || config.arithmetic_digits > 9) {
    throw Error("data.arithmetic_digits is {}, must be 1..9", config.arithmetic_digits);
  }
  const std::string& operations = config.arithmetic_operations;
  if (operations.empty() || operations.find_first_not_of("+-*") != std::string::npos) {
    throw Error("data.arithmetic_operations is \"{}\", must be one or more of + - *", operations);
  }
  if (const std::int64_t longest = problem_length_max(config); longest > cut.length) {
    throw Error("train.sequence_length is {}, problems of {} digits can have {} tokens", cut.length,
                config.arithmetic_digits, longest);
  }
  std::vector<std::int32_t> sizes;
  for (std::uint64_t i = 0; i < kHeldOutProblems; ++i)
    sizes.push_back(size_of(make_problem(config, cut.seed, i, true)));
  held_out_starts_ = pack_in_order(sizes, cut.length);
}

// Every sequence has problem numbers of its own, as many as could possibly fit.
Sequence ArithmeticStream::train(std::int64_t sequence, std::int64_t /*ordinal*/) const {
  Sequence built;
  auto index = static_cast<std::uint64_t>(sequence) * static_cast<std::uint64_t>(cut_.length);
  for (Problem problem = make_problem(config_, cut_.seed, index, false);
       static_cast<std::int32_t>(built.ids.size()) + size_of(problem) <= cut_.length;
       problem = make_problem(config_, cut_.seed, ++index, false)) {
    append_problem(built, problem);
  }
  built.pad(cut_.length, cut_.eos);
  return built;
}

Sequence ArithmeticStream::held_out(std::int64_t index) const {
  Sequence built;
  const auto at = static_cast<std::size_t>(index);
  for (std::int64_t i = held_out_starts_[at]; i < held_out_starts_[at + 1]; ++i) {
    append_problem(built, make_problem(config_, cut_.seed, static_cast<std::uint64_t>(i), true));
  }
  built.pad(cut_.length, cut_.eos);
  return built;
}

// ---- Tasks ----------------------------------------------------------------------------------------------------------
TaskStream::TaskStream(const Config& config, const Cut& cut)
    : tasks_(std::make_shared<const TaskSet>(config)), cut_(cut) {
  Looked looked;
  for (std::uint64_t next = 0; next < kHeldOutProblems; next += looked.at) {
    held_out_.push_back(pack(Split::held_out, next, kHeldOutProblems - next, looked));
    held_out_too_long_ += looked.too_long;
    if (looked.too_long == kHeldOutProblems)
      throw Error("train.sequence_length is {}, the first {} problems of [task] have more tokens: raise it", cut.length,
                  kHeldOutProblems);
  }
}

std::size_t TaskStream::bytes() const {
  std::size_t sum = tasks_->problems.bytes();
  for (const Sequence& one : held_out_)
    sum += (one.ids.capacity() + one.labels.capacity() + one.document_starts.capacity()) * sizeof(std::int32_t);
  return sum;
}

std::string TaskStream::note() const {
  std::vector<std::string> said;
  if (tasks_->problems.left_out() > 0)
    said.push_back(fmt::format("{} questions of task.files left out: a sequence has no room for them",
                               tasks_->problems.left_out()));
  if (held_out_too_long_ > 0)
    said.push_back(fmt::format("problems longer than {} tokens left out, {} of the first {} held-out ones", cut_.length,
                               held_out_too_long_, kHeldOutProblems));
  return fmt::format("{}", fmt::join(said, "; "));
}

Sequence TaskStream::pack(Split split, std::uint64_t first, std::uint64_t count, Looked& looked) const {
  Sequence built;
  for (looked = {}; looked.at < count; ++looked.at) {
    const ChatTokens example = tasks_->text.example(tasks_->problems.problem(cut_.seed, split, first + looked.at));
    const auto size = static_cast<std::int64_t>(example.ids.size());
    if (size > cut_.length) {
      ++looked.too_long;
      continue;
    }
    if (static_cast<std::int64_t>(built.ids.size()) + size > cut_.length) break;
    built.start_document();
    for (std::size_t i = 0; i < example.ids.size(); ++i) built.append(example.ids[i], example.is_target[i]);
  }
  built.pad(cut_.length, cut_.eos);
  return built;
}

// Every sequence has problem numbers of its own, as many as could possibly fit.
Sequence TaskStream::train(std::int64_t sequence, std::int64_t /*ordinal*/) const {
  const auto length = static_cast<std::uint64_t>(cut_.length);
  Looked looked;
  return pack(Split::train, static_cast<std::uint64_t>(sequence) * length, length, looked);
}

// ---- Random tokens --------------------------------------------------------------------------------------------------
Sequence RandomStream::train(std::int64_t sequence, std::int64_t /*ordinal*/) const { return draw("random", sequence); }

Sequence RandomStream::held_out(std::int64_t index) const { return draw("random held out", index); }

Sequence RandomStream::draw(const char* purpose, std::int64_t number) const {
  const std::uint64_t key = cut_.key(purpose);
  Sequence sequence;
  sequence.start_document();
  for (std::int32_t at = 0; at < cut_.length; ++at) {
    const std::uint64_t token =
        random_below(vocabulary_, key, static_cast<std::uint64_t>(number), static_cast<std::uint64_t>(at));
    sequence.append(static_cast<std::int32_t>(token), true);
  }
  return sequence;
}

}  // namespace troupe
