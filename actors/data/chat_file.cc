#include "actors/data/chat_file.h"

#include <algorithm>

#include "actors/mapped_file.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {

ChatFile::ChatFile(const std::string& path, const ChatTemplate& chat, const std::string& long_examples, const Cut& cut)
    : cut_(cut) {
  read(path, chat, long_examples);
  const auto training = static_cast<std::size_t>(cut.training_part(examples_.size()));
  if (cut.held_out < 1 && training == 0)
    throw Error("{} has {} examples, none of them for training: lower data.held_out", path, examples_.size());
  if (cut.held_out > 0 && training == examples_.size())
    throw Error("{} has {} examples, none of them held out: raise data.held_out", path, examples_.size());
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
  std::size_t sum =
      ids_.capacity() * sizeof(std::int32_t) + is_target_.capacity() / 8 + examples_.capacity() * sizeof(Example);
  for (const Packed* packed : {&training_, &held_out_})
    sum += packed->examples.capacity() * sizeof(std::uint32_t) + packed->starts.capacity() * sizeof(std::int64_t);
  return sum;
}

Sequence ChatFile::train(std::int64_t /*sequence*/, std::int64_t ordinal) const {
  const auto count = static_cast<std::uint64_t>(training_.sequences()), at = static_cast<std::uint64_t>(ordinal);
  CHECK(count > 0, "no training part was opened");
  const std::uint64_t epoch_key = random_word(cut_.key("epoch"), at / count);
  return build(training_, random_permute(at % count, count, epoch_key));
}

Sequence ChatFile::held_out(std::int64_t index) const { return build(held_out_, static_cast<std::uint64_t>(index)); }

ChatFile::Packed ChatFile::pack(std::size_t first, std::size_t end, bool shuffle) const {
  Packed packed;
  const std::uint64_t key = cut_.key("examples");
  packed.examples.resize(end - first);
  for (std::size_t i = 0; i < end - first; ++i)
    packed.examples[shuffle ? random_permute(i, end - first, key) : i] = static_cast<std::uint32_t>(first + i);
  std::vector<std::int32_t> sizes;
  for (const std::uint32_t example : packed.examples) {
    sizes.push_back(examples_[example].size);
    packed.tokens += examples_[example].size;
  }
  packed.starts = pack_in_order(sizes, cut_.length);
  return packed;
}

Sequence ChatFile::build(const Packed& packed, std::uint64_t index) const {
  Sequence sequence;
  for (std::int64_t i = packed.starts[index]; i < packed.starts[index + 1]; ++i) {
    const Example& example = examples_[packed.examples[static_cast<std::size_t>(i)]];
    sequence.start_document();
    for (std::uint64_t at = example.first; at < example.first + static_cast<std::uint64_t>(example.size); ++at)
      sequence.append(ids_[at], is_target_[at]);
  }
  sequence.pad(cut_.length, cut_.eos);
  return sequence;
}

}  // namespace troupe
