// `troupe tokenize --tokenizer PATH FILE... --out OUT.tokens`: text as tokens, once, for every run to come.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "actors/checkpoint/manifest.h"
#include "actors/data/json_lines.h"
#include "actors/data/token_file.h"
#include "actors/data/tokenizer.h"
#include "actors/mapped_file.h"
#include "kernels/base/error.h"
#include "launcher/loop.h"
#include "launcher/progress.h"
#include "launcher/tools.h"

namespace troupe {
namespace {

// One live line on a terminal, else a line every few seconds.
class ByteProgress {
 public:
  explicit ByteProgress(std::uint64_t all)
      : all_(all), terminal_(isatty(STDERR_FILENO) == 1), begin_us_(monotonic_us()) {}

  void show(std::uint64_t done) {
    const std::int64_t now = monotonic_us();
    if (now - shown_us_ < (terminal_ ? 100'000 : 5'000'000) || now - begin_us_ < 1'000'000) return;
    shown_us_ = now;
    const double seconds = static_cast<double>(now - begin_us_) * 1e-6, rate = static_cast<double>(done) / seconds;
    const double left = rate > 0 ? static_cast<double>(all_ - std::min(done, all_)) / rate : 0;
    std::fprintf(stderr, "%s%3.0f %%  %.1f MB/s  %s left%s", terminal_ ? "\r" : "",
                 100 * static_cast<double>(std::min(done, all_)) / static_cast<double>(all_), rate * 1e-6,
                 human_time(left).c_str(), terminal_ ? "  " : "\n");
  }
  void end() const {
    if (terminal_ && shown_us_ > 0) std::fprintf(stderr, "\r%40s\r", "");
  }

 private:
  std::uint64_t all_;
  bool terminal_;
  std::int64_t begin_us_, shown_us_ = 0;
};

struct Tokenizing {
  const TokenizeOptions& options;
  const Tokenizer& tokenizer;
  std::int32_t end_token;
  TokenFileWriter& out;
  ByteProgress& progress;
  std::uint64_t done = 0, text_bytes = 0;  // of the sources, of the texts in them

  void text(const std::string& path, std::string_view all) {
    if (all.empty()) throw Error("tokenize: {} is empty: leave it out", path);
    out.start_document();
    text_bytes += all.size();
    tokenizer.encode(all, [&](const std::vector<std::int32_t>& tokens, std::size_t bytes) {
      out.append(tokens);
      progress.show(done + bytes);
    });
  }

  void documents(const std::string& path, std::string_view all) {
    const std::uint64_t before = out.documents();
    for_each_json_line(all, [&](const JsonLine& line) {
      const std::string document = text_of_json_line(path, line, options.text_key);
      text_bytes += document.size();
      std::vector<std::int32_t> tokens = tokenizer.encode(document);
      tokens.push_back(end_token);
      out.start_document();
      out.append(tokens);
      progress.show(done + static_cast<std::uint64_t>(line.text.data() - all.data()));
    });
    if (out.documents() == before) throw Error("tokenize: {} ({} bytes) holds no documents", path, all.size());
  }
};

bool holds_documents(const std::string& path) { return path.ends_with(".jsonl"); }

std::int32_t end_token_of(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  if (!options.end.empty()) {
    const auto found = tokenizer.token(options.end);
    if (!found) throw Error("tokenize: {} has no token \"{}\" (--eos)", options.tokenizer, options.end);
    return *found;
  }
  if (const auto told = tokenizer.end_token()) return *told;
  for (const std::string& file : options.files)
    if (holds_documents(file))
      throw Error(
          "tokenize: {} holds documents, and {} doesn't tell which token ends one: name it, as in --eos "
          "\"<|endoftext|>\"",
          file, options.tokenizer);
  return -1;
}

}  // namespace

int tokenize(const TokenizeOptions& options) {
  const auto tokenizer = open_tokenizer(options.tokenizer);
  std::string digests;
  std::uint64_t bytes = 0;
  for (const std::string& file : options.files) {
    if (!holds_documents(file) && !file.ends_with(".txt"))
      throw Error("tokenize: {} is neither a .txt, which is one text, nor a .jsonl of documents: rename it", file);
    bytes += MappedFile(file).size();
    digests += sha256_file(file);
  }
  const std::int32_t end_token = end_token_of(options, *tokenizer);
  TokenFileWriter out(options.out, {.vocabulary = tokenizer->vocabulary(),
                                    .end_token = end_token,
                                    .tokenizer_sha256 = tokenizer->digest(),
                                    .sources_sha256 = sha256(digests)});
  ByteProgress progress(bytes);
  Tokenizing work{options, *tokenizer, end_token, out, progress};
  for (const std::string& file : options.files) {
    const MappedFile source(file);
    if (holds_documents(file)) {
      work.documents(file, source.text());
    } else {
      work.text(file, source.text());
    }
    work.done += source.size();
  }
  out.finish();
  progress.end();
  std::printf("wrote %s: %llu tokens of %llu documents, %.2f bytes a token, vocabulary %d\n", options.out.c_str(),
              static_cast<unsigned long long>(out.tokens()), static_cast<unsigned long long>(out.documents()),
              static_cast<double>(work.text_bytes) / static_cast<double>(out.tokens()), tokenizer->vocabulary());
  return 0;
}

}  // namespace troupe
