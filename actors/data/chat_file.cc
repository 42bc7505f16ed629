#include "actors/data/chat_file.h"

#include <algorithm>
#include <numeric>

#include "actors/mapped_file.h"
#include "kernels/base/error.h"

namespace troupe {

ChatFile::ChatFile(const std::string& path, const ChatTemplate& chat, const std::string& long_examples, const Cut& cut)
    : cut_(cut) {
  read(path, chat, long_examples);
  const auto training = static_cast<std::size_t>(cut.training_part(examples_.size()));
  check_parts(path, "examples", examples_.size(), training, cut);
  training_ = pack(0, training, true);
  held_out_ = pack(training, examples_.size(), false);
}

void ChatFile::read(const std::string& path, const ChatTemplate& chat, const std::string& long_examples) {
  const MappedFile file(path);
  const auto length = static_cast<std::size_t>(cut_.length);
  for_each_json_line(file.text(), [&](const JsonLine& line) {
    ChatTokens tokens = chat.example(read_chat(path, line));
    ++seen_;
    if (tokens.ids.size() > length) {
      if (long_examples == "refuse") {
        throw Error(
            "{}:{}: an example of {} tokens, a sequence has {}: raise train.sequence_length, or set "
            "data.long_examples to drop or truncate",
            path, line.number, tokens.ids.size(), length);
      }
      tokens.ids.resize(length);
      tokens.is_target.resize(length);
      const bool is_useless =
          std::find(tokens.is_target.begin(), tokens.is_target.end(), true) == tokens.is_target.end();
      const bool is_dropped = long_examples == "drop" || is_useless;
      ++(is_dropped ? dropped_ : truncated_);
      if (is_dropped) return;
    }
    examples_.push_back({ids_.size(), static_cast<std::int32_t>(tokens.ids.size())});
    ids_.insert(ids_.end(), tokens.ids.begin(), tokens.ids.end());
    is_target_.insert(is_target_.end(), tokens.is_target.begin(), tokens.is_target.end());
  });
  if (seen_ == 0) throw Error("{} ({} bytes) holds no examples", path, file.size());
  if (examples_.empty())
    throw Error("{}: none of its {} examples fits a sequence of {} tokens: raise train.sequence_length", path, seen_,
                length);
}

std::string ChatFile::note() const {
  if (dropped_ + truncated_ == 0) return "";
  return fmt::format("of {} examples {} dropped and {} truncated: longer than {} tokens", seen_, dropped_, truncated_,
                     cut_.length);
}

std::size_t ChatFile::bytes() const {
  return ids_.capacity() * sizeof(std::int32_t) + is_target_.capacity() / 8 + examples_.capacity() * sizeof(Example) +
         training_.bytes() + held_out_.bytes();
}

Sequence ChatFile::train(std::int64_t /*sequence*/, std::int64_t ordinal) const {
  return build(training_, place_in_epoch(cut_, ordinal, training_.sequences()));
}

Sequence ChatFile::held_out(std::int64_t index) const { return build(held_out_, static_cast<std::uint64_t>(index)); }

ChatFile::Examples ChatFile::pack(std::size_t first, std::size_t end, bool shuffle) const {
  std::vector<std::uint32_t> examples(end - first);
  std::iota(examples.begin(), examples.end(), static_cast<std::uint32_t>(first));
  return pack_items(examples, shuffle ? std::optional(cut_.key("examples")) : std::nullopt, cut_.length,
                    [&](std::uint32_t example) { return examples_[example].size; });
}

Sequence ChatFile::build(const Examples& packed, std::uint64_t index) const {
  Sequence sequence;
  for (std::int64_t i = packed.starts[index]; i < packed.starts[index + 1]; ++i) {
    const Example& example = examples_[packed.items[static_cast<std::size_t>(i)]];
    sequence.start_document();
    for (std::uint64_t at = example.first; at < example.first + static_cast<std::uint64_t>(example.size); ++at)
      sequence.append(ids_[at], is_target_[at]);
  }
  sequence.pad(cut_.length, cut_.eos);
  return sequence;
}

}  // namespace troupe
