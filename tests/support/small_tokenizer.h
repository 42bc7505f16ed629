// A tokenizer.json made for a test: the bytes, and what a few merges make.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace troupe::test {

// The letters by which a tokenizer.json writes these bytes.
inline std::string letters_of(const std::string& bytes) {
  std::string letters;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    int code = byte;
    if (byte <= 32) code = 256 + byte;
    if (byte >= 127 && byte <= 160) code = 256 + 33 + byte - 127;
    if (byte == 173) code = 256 + 67;
    if (code < 128) {
      letters += static_cast<char>(code);
    } else {
      letters += static_cast<char>(0xc0 | code >> 6);
      letters += static_cast<char>(0x80 | (code & 0x3f));
    }
  }
  return letters;
}

// A tokenizer.json whose first 256 tokens are the bytes in order, then what the merges make.
inline nlohmann::json small_tokenizer(const std::vector<std::pair<std::string, std::string>>& merges,
                                      const nlohmann::json& pre_tokenizer) {
  nlohmann::json vocabulary, list = nlohmann::json::array();
  for (int byte = 0; byte < 256; ++byte) vocabulary[letters_of(std::string(1, static_cast<char>(byte)))] = byte;
  int next = 256;
  for (const auto& [left, right] : merges) {
    vocabulary[letters_of(left + right)] = next++;
    list.push_back(letters_of(left) + " " + letters_of(right));
  }
  return {{"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", pre_tokenizer},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

inline nlohmann::json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}

}  // namespace troupe::test
