// tokenizer.json, Hugging Face's description of a tokenizer, as a value. What it may ask and this can't do is refused
// with the file, the field and what was found there.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "actors/data/byte_pairs.h"
#include "actors/data/pre_tokenizer.h"

namespace troupe {

// A token that no merge makes: where its content stands in a text that may hold such tokens, it is cut out first.
struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool takes_blanks_before = false, takes_blanks_after = false;  // lstrip, rstrip
  bool is_normalized = false;                                    // looked for in the normalised text
};

struct TokenizerFile {
  std::vector<std::string> contents;  // by token: its bytes; empty: there is no such token
  std::array<std::int32_t, 256> bytes{};
  std::vector<BytePair> merges;
  bool ignore_merges = false;  // a piece that is a token as a whole becomes it at once
  std::vector<NormalForm> forms;
  std::vector<SplitStep> steps;
  std::vector<AddedToken> added;
  std::string end_content;  // of the token that ends a text, by tokenizer_config.json beside it; empty: not told
};

// Throws Error.
TokenizerFile read_tokenizer_file(const std::string& path);

}  // namespace troupe
