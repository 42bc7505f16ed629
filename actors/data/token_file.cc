#include "actors/data/token_file.h"

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <type_traits>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/hex.h"

namespace troupe {
namespace {

constexpr std::string_view kMagic = "TROUPETK";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 128, kTokenizerAt = 40, kSourcesAt = 72, kDigestBytes = 32;

std::size_t bytes_of_token(std::int32_t vocabulary) { return vocabulary <= 65536 ? 2 : 4; }
std::size_t rounded(std::size_t bytes) { return (bytes + 7) / 8 * 8; }

template <typename T>
void put(std::string& bytes, T value) {
  using Unsigned = std::make_unsigned_t<T>;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(static_cast<Unsigned>(value)) >> (8 * i) & 0xff);
}

}  // namespace

// ---- Writing --------------------------------------------------------------------------------------------------------

TokenFileWriter::TokenFileWriter(std::string path, Facts facts)
    : path_(std::move(path)), facts_(std::move(facts)), file_(path_ + ".partial", std::ios::binary) {
  if (!file_) throw Error("{}.partial: can't be written; does the folder exist?", path_);
  file_ << std::string(kHeaderBytes, '\0');
}

TokenFileWriter::~TokenFileWriter() {
  if (!is_finished_) std::remove((path_ + ".partial").c_str());
}

void TokenFileWriter::start_document() { starts_.push_back(tokens_); }

void TokenFileWriter::append(const std::vector<std::int32_t>& tokens) {
  std::string bytes;
  for (const std::int32_t token : tokens) {
    CHECK(token >= 0 && token < facts_.vocabulary, "token {} of {}", token, facts_.vocabulary);
    if (bytes_of_token(facts_.vocabulary) == 2) {
      put(bytes, static_cast<std::uint16_t>(token));
    } else {
      put(bytes, token);
    }
  }
  file_ << bytes;
  check();
  tokens_ += tokens.size();
}

void TokenFileWriter::finish() {
  const std::size_t bytes = tokens_ * bytes_of_token(facts_.vocabulary);
  file_ << std::string(rounded(bytes) - bytes, '\0');
  for (const std::uint64_t start : starts_) {
    std::string eight;
    put(eight, start);
    file_ << eight;
  }
  file_.seekp(0);
  file_ << header();
  file_.close();
  check();
  std::error_code failed;
  std::filesystem::rename(path_ + ".partial", path_, failed);
  if (failed) throw Error("{}: can't be put in its place: {}", path_, failed.message());
  is_finished_ = true;
}

std::string TokenFileWriter::header() const {
  std::string bytes(kMagic);
  put(bytes, kVersion);
  put(bytes, static_cast<std::uint32_t>(bytes_of_token(facts_.vocabulary)));
  put(bytes, facts_.vocabulary);
  put(bytes, facts_.end_token);
  put(bytes, tokens_);
  put(bytes, static_cast<std::uint64_t>(starts_.size()));
  bytes += from_hex(facts_.tokenizer_sha256) + from_hex(facts_.sources_sha256);
  CHECK(bytes.size() == kSourcesAt + kDigestBytes, "a header of {} bytes", bytes.size());
  bytes.resize(kHeaderBytes, '\0');
  return bytes;
}

void TokenFileWriter::check() const {
  if (!file_) throw Error("{}.partial: can't be written; is the disk full?", path_);
}

// ---- Reading --------------------------------------------------------------------------------------------------------

template <typename T>
T MappedTokens::read(std::size_t offset) const {
  T value{};
  std::memcpy(&value, file_.data() + offset, sizeof(T));
  return value;
}

MappedTokens::MappedTokens(const std::string& path) : file_(path) {
  const std::size_t bytes = file_.size();
  if (bytes < kHeaderBytes || !file_.text().starts_with(kMagic))
    throw Error("{} ({} bytes) is no file of tokens: make one with troupe tokenize", path, bytes);
  if (const auto version = read<std::uint32_t>(8); version != kVersion)
    throw Error("{} has version {}, this program reads {}: make it again with troupe tokenize", path, version,
                kVersion);
  token_bytes_ = read<std::uint32_t>(12);
  vocabulary_ = read<std::int32_t>(16);
  end_token_ = read<std::int32_t>(20);
  size_ = read<std::uint64_t>(24);
  documents_ = read<std::uint64_t>(32);
  tokenizer_sha256_ = to_hex(file_.text().substr(kTokenizerAt, kDigestBytes));
  const bool is_sane =
      vocabulary_ > 0 && token_bytes_ == bytes_of_token(vocabulary_) && size_ < bytes && documents_ < bytes;
  starts_offset_ = rounded(kHeaderBytes + size_ * token_bytes_);
  if (!is_sane || starts_offset_ + documents_ * 8 != bytes)
    throw Error("{} has {} bytes, its header tells of others: it was cut off; make it again with troupe tokenize", path,
                bytes);
}

std::int32_t MappedTokens::at(std::size_t index) const {
  CHECK(index < size_, "token {} of {}", index, size_);
  const std::size_t offset = kHeaderBytes + index * token_bytes_;
  const std::int32_t token = token_bytes_ == 2 ? std::int32_t{read<std::uint16_t>(offset)} : read<std::int32_t>(offset);
  CHECK(token >= 0 && token < vocabulary_, "token {} of a vocabulary of {}: a file of tokens is damaged", token,
        vocabulary_);
  return token;
}

std::uint64_t MappedTokens::document_start(std::size_t document) const {
  CHECK(document < documents_, "document {} of {}", document, documents_);
  return read<std::uint64_t>(starts_offset_ + document * 8);
}

std::size_t MappedTokens::document_from(std::uint64_t token) const {
  std::size_t low = 0, high = documents_;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (document_start(middle) < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace troupe
