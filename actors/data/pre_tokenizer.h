// PreTokenizer: how a text is normalised, and cut into the pieces that become tokens each by itself. The only user of
// PCRE2 and ICU. The law: it works on valid UTF-8 and loses nothing of it, but what a step removes by its own words.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// What becomes of a match: a piece of its own, nothing, a part of the piece before it or after it, or one piece with
// the matches beside it.
enum class SplitBehaviour { isolated, removed, merged_with_previous, merged_with_next, contiguous };

// A step goes through every piece that the steps before it made. It puts a blank in front of a piece that has none, or
// it splits the piece, or it does both in this order.
struct SplitStep {
  bool prefix_space = false;
  std::string pattern;      // empty: no split
  bool is_literal = false;  // the pattern is a text, not a regular expression
  SplitBehaviour behaviour = SplitBehaviour::isolated;
  bool invert = false;  // what doesn't match counts as the match
};

class PreTokenizer {
 public:
  using Take = std::function<void(std::string_view piece)>;

  // Throws Error: a pattern that is not supported, or that may match nothing.
  PreTokenizer(std::vector<NormalForm> forms, const std::vector<SplitStep>& steps);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  // REQUIRES: valid UTF-8.
  std::string normalized(std::string_view text) const;
  bool is_normalized(std::string_view text) const;
  // Every piece in turn, none of them empty. Time: linear for the patterns of the known tokenizers.
  // REQUIRES: valid UTF-8.
  void split(std::string_view text, const Take& take) const;

 private:
  struct Step;
  class Splitting;
  std::vector<NormalForm> forms_;
  std::vector<Step> steps_;
};

}  // namespace troupe
