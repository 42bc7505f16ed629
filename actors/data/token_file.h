// A file of tokens, made once by `troupe tokenize` and mapped into memory by every run. Little-endian:
//
//   offset  bytes
//        0      8  "TROUPETK"
//        8      4  version of this format: 1
//       12      4  bytes of a token: 2 if the vocabulary has at most 65,536, else 4
//       16      4  vocabulary: every token is less
//       20      4  token that ends a document; -1: none does
//       24      8  T, tokens
//       32      8  D, documents
//       40     32  SHA-256 of tokenizer.json (of "bytes": one token a byte)
//       72     32  SHA-256 over the sources' SHA-256 in hex, in their order
//      104     24  zeros
//      128         T tokens, then zeros up to a multiple of 8
//            8 x D  the first token of each document, increasing
//
// The law: the same tokenizer, end token and sources make the same bytes; a run reads it with the tokenizer that made it
// and, where documents have an end, with that token as its own.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "actors/mapped_file.h"

namespace troupe {

class TokenFileWriter {
 public:
  struct Facts {
    std::int32_t vocabulary = 0, end_token = -1;
    std::string tokenizer_sha256, sources_sha256;  // hex
  };
  // Writes PATH.partial, which finish() renames; without it, nothing stays. Throws Error.
  TokenFileWriter(std::string path, Facts facts);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  void start_document();
  void append(const std::vector<std::int32_t>& tokens);
  void finish();
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t documents() const { return starts_.size(); }

 private:
  std::string header() const;
  void check() const;

  std::string path_;
  Facts facts_;
  std::ofstream file_;
  std::uint64_t tokens_ = 0;
  std::vector<std::uint64_t> starts_;
  bool is_finished_ = false;
};

class MappedTokens {
 public:
  // Throws Error: not such a file, or cut off.
  explicit MappedTokens(const std::string& path);

  std::size_t size() const { return size_; }
  std::size_t documents() const { return documents_; }
  std::int32_t vocabulary() const { return vocabulary_; }
  std::int32_t end_token() const { return end_token_; }
  const std::string& tokenizer_sha256() const { return tokenizer_sha256_; }
  std::int32_t at(std::size_t index) const;
  std::uint64_t document_start(std::size_t document) const;
  // The first document that begins at or after this token.
  std::size_t document_from(std::uint64_t token) const;

 private:
  template <typename T>
  T read(std::size_t offset) const;

  MappedFile file_;
  std::size_t size_ = 0, documents_ = 0, token_bytes_ = 2, starts_offset_ = 0;
  std::int32_t vocabulary_ = 0, end_token_ = -1;
  std::string tokenizer_sha256_;
};

}  // namespace troupe
