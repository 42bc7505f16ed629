// Tokenizer: text as tokens, and tokens as text. Immutable, and shared by whoever reads or writes text.
//
// The law: decode(encode(text)) is the text, for every string of bytes. Bytes that are no UTF-8 are tokens of their
// own, a run of them is never merged with what stands beside it. With a normal form each run of valid UTF-8 comes back
// normalised; with add_prefix_space a blank may have been put in front of it; what a Split removes is gone; and
// encode_with_special loses the blanks that an added token takes (lstrip, rstrip).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

class Tokenizer {
 public:
  // One token a byte.
  Tokenizer();
  // Hugging Face's byte-level BPE. Throws Error.
  explicit Tokenizer(const std::string& tokenizer_json);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // All of the text is ordinary text: "<|endoftext|>" in it becomes some tokens, not the one.
  std::vector<std::int32_t> encode(std::string_view text) const;
  // Tokens in portions, with the number of bytes done, as they are after the normal form: the tokens of a long text are
  // never held all at once.
  using Take = std::function<void(const std::vector<std::int32_t>& tokens, std::size_t bytes)>;
  void encode(std::string_view text, const Take& take) const;
  // Added tokens, special or not, become themselves; the text between them is encoded piece by piece.
  std::vector<std::int32_t> encode_with_special(std::string_view text) const;

  // A token that this tokenizer doesn't have is nothing.
  std::string decode(const std::int32_t* tokens, std::size_t count) const;
  std::string decode(const std::vector<std::int32_t>& tokens) const { return decode(tokens.data(), tokens.size()); }

  std::int32_t vocabulary() const;  // every token is less
  std::optional<std::int32_t> token(const std::string& content) const;
  std::optional<std::int32_t> end_token() const;  // as tokenizer_config.json beside it says
  bool is_bytes() const { return parts_ == nullptr; }
  std::size_t bytes() const;                             // resident: about what its tables take
  const std::string& path() const { return path_; }      // empty: bytes
  const std::string& digest() const { return digest_; }  // SHA-256 of the file

 private:
  struct Parts;
  std::unique_ptr<const Parts> parts_;  // null: bytes
  std::string path_, digest_;
};

// "" or "bytes": one token a byte. Anything else: a tokenizer.json, or the folder that holds it. Throws Error.
std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& name_or_path);
// The file that open_tokenizer reads; empty: none.
std::string tokenizer_file_of(const std::string& name_or_path);

}  // namespace troupe
