// ChatFile: a JSONL file of conversations as a source of sequences (see sources.h). An example is never cut in two: it
// is packed whole, beside others that it doesn't see, and every epoch holds each once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/data/chat.h"
#include "actors/data/cut.h"
#include "actors/data/packing.h"

namespace troupe {

class ChatFile {
 public:
  // long_examples: what becomes of one with more tokens than a sequence: "refuse", "drop", or "truncate" (its begin
  // is kept; where nothing is left to learn it is dropped). Throws Error.
  ChatFile(const std::string& path, const ChatTemplate& chat, const std::string& long_examples, const Cut& cut);
  std::int64_t training_tokens() const { return training_.tokens; }
  std::int64_t held_out_sequences() const { return held_out_.sequences(); }
  std::size_t bytes() const;
  Sequence train(std::int64_t sequence, std::int64_t ordinal) const;
  Sequence held_out(std::int64_t index) const;  // examples in the file's order
  // What became of long examples, in a sentence; empty: there was none.
  std::string note() const;

 private:
  struct Example {
    std::uint64_t first = 0;  // token
    std::int32_t size = 0;
  };
  using Examples = Packed<std::uint32_t>;
  void read(const std::string& path, const ChatTemplate& chat, const std::string& long_examples);
  Examples pack(std::size_t first, std::size_t end, bool shuffle) const;
  Sequence build(const Examples& packed, std::uint64_t index) const;

  Cut cut_;
  std::vector<std::int32_t> ids_;
  std::vector<bool> is_target_;
  std::vector<Example> examples_;
  std::int64_t seen_ = 0, dropped_ = 0, truncated_ = 0;
  Examples training_, held_out_;
};

}  // namespace troupe
