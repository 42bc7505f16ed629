// `troupe tokenize --tokenizer PATH FILE... --out OUT.tokens`: text as tokens, once, for every run to come.
#include <fmt/format.h>

#include <cstdio>

#include "actors/checkpoint/manifest.h"
#include "actors/data/json_lines.h"
#include "actors/data/token_file.h"
#include "actors/data/tokenizer.h"
#include "actors/mapped_file.h"
#include "kernels/base/error.h"
#include "launcher/teller.h"
#include "launcher/tools.h"

namespace troupe {
namespace {

struct Tokenizing {
  const TokenizeOptions& options;
  const Tokenizer& tokenizer;
  std::int32_t end_token;
  TokenFileWriter& out;
  Teller& tell;
  std::size_t all_bytes = 0, done = 0, text_bytes = 0;  // of the sources; of the texts in them

  void text(const std::string& path, std::string_view all) {
    if (all.empty()) throw Error("tokenize: {} is empty: leave it out", path);
    out.start_document();
    text_bytes += all.size();
    tokenizer.encode(all, [&](const std::vector<std::int32_t>& tokens, std::size_t bytes) {
      out.append(tokens);
      tell(done + bytes, all_bytes);
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
      tell(done + static_cast<std::size_t>(line.text.data() - all.data()), all_bytes);
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
  for (const std::string& file : options.files) {
    if (!holds_documents(file)) continue;
    if (tokenizer.is_bytes())
      throw Error("tokenize: {} holds documents: name which byte ends one, as in --eos $'\\n'", file);
    throw Error(
        "tokenize: {} holds documents, and {} doesn't tell which token ends one: name it, as in --eos "
        "\"<|endoftext|>\"",
        file, options.tokenizer);
  }
  return -1;
}

// Bytes of all texts.
std::size_t encode_all(const TokenizeOptions& options, const Tokenizer& tokenizer, std::int32_t end_token,
                       std::size_t bytes, TokenFileWriter& out) {
  Teller teller("tokenize", false, "bytes");
  Tokenizing work{options, tokenizer, end_token, out, teller, bytes};
  for (const std::string& file : options.files) {
    const MappedFile source(file);
    if (holds_documents(file)) {
      work.documents(file, source.text());
    } else {
      work.text(file, source.text());
    }
    work.done += source.size();
  }
  return work.text_bytes;
}

}  // namespace

int tokenize(const TokenizeOptions& options) {
  const auto tokenizer = open_tokenizer(options.tokenizer);
  std::string digests;
  std::size_t bytes = 0;
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
  const std::size_t text_bytes = encode_all(options, *tokenizer, end_token, bytes, out);
  out.finish();
  std::printf("wrote %s: %llu tokens of %llu documents, %.2f bytes a token, vocabulary %d\n", options.out.c_str(),
              static_cast<unsigned long long>(out.tokens()), static_cast<unsigned long long>(out.documents()),
              static_cast<double>(text_bytes) / static_cast<double>(out.tokens()), tokenizer->vocabulary());
  return 0;
}

}  // namespace troupe
