// A text on its way to tokens: added tokens are cut out, the rest is cut into runs of valid UTF-8 and of other bytes,
// the valid ones are normalised and pre-tokenised, and each piece becomes tokens by merging bytes.
#include "actors/data/tokenizer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <unordered_map>

#include "actors/checkpoint/manifest.h"
#include "actors/data/tokenizer_file.h"
#include "actors/data/utf8.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

constexpr std::size_t kPortion = std::size_t{1} << 16;  // tokens

// So that a piece is looked up without being copied.
struct KeyOfText {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return random_key(0, text); }
};
using IdsByContent = std::unordered_map<std::string, std::int32_t, KeyOfText, std::equal_to<>>;

std::size_t blanks_at_end(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size()) {
    std::size_t bytes = 1;  // of the last character
    while (bytes < 4 && count + bytes < text.size() && (text[text.size() - count - bytes] & 0xc0) == 0x80) ++bytes;
    const CodePoint last = code_point_at(text, text.size() - count - bytes);
    if (last.bytes != bytes || !is_white_space(last.value)) break;
    count += bytes;
  }
  return count;
}

std::size_t blanks_at_begin(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size()) {
    const CodePoint next = code_point_at(text, count);
    if (next.bytes == 0 || !is_white_space(next.value)) break;
    count += next.bytes;
  }
  return count;
}

// Where added tokens stand in a text: the leftmost first, and of those that begin there the longest.
class AddedTokens {
 public:
  void add(const AddedToken& token) {
    auto& bucket = by_first_byte_[static_cast<unsigned char>(token.content[0])];
    bucket.push_back(token);
    std::stable_sort(bucket.begin(), bucket.end(),
                     [](const auto& a, const auto& b) { return a.content.size() > b.content.size(); });
  }

  // Ordinary text goes to `text`, tokens to `token`, in order.
  template <typename Text, typename Token>
  void split(std::string_view all, const Text& text, const Token& token) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < all.size();) {
      const AddedToken* found = find(all.substr(at));
      if (found == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + found->content.size();
      if (found->takes_blanks_before) begin -= blanks_at_end(all.substr(done, at - done));
      if (found->takes_blanks_after) end += blanks_at_begin(all.substr(end));
      if (begin > done) text(all.substr(done, begin - done));
      token(found->id);
      done = at = end;
    }
    if (done < all.size()) text(all.substr(done));
  }

 private:
  const AddedToken* find(std::string_view text) const {
    for (const AddedToken& one : by_first_byte_[static_cast<unsigned char>(text[0])])
      if (text.starts_with(one.content)) return &one;
    return nullptr;
  }
  std::array<std::vector<AddedToken>, 256> by_first_byte_;
};

}  // namespace

struct Tokenizer::Parts {
  explicit Parts(const TokenizerFile& file)
      : contents(file.contents),
        pairs(file.bytes, file.merges),
        pre_tokenizer(file.forms, file.steps),
        ignore_merges(file.ignore_merges),
        end_content(file.end_content) {
    for (const AddedToken& token : file.added) {
      AddedToken sought = token;
      if (token.is_normalized) sought.content = pre_tokenizer.normalized(token.content);
      (token.is_normalized ? added_normalized : added).add(sought);
      by_content.try_emplace(token.content, token.id);
    }
    for (std::size_t id = 0; id < contents.size(); ++id)
      if (!contents[id].empty()) by_content.try_emplace(contents[id], static_cast<std::int32_t>(id));
    if (!ignore_merges) return;
    std::vector<bool> is_added(contents.size(), false);
    for (const AddedToken& token : file.added) is_added[static_cast<std::size_t>(token.id)] = true;
    for (std::size_t id = 0; id < contents.size(); ++id)
      if (!is_added[id] && !contents[id].empty()) whole.try_emplace(contents[id], static_cast<std::int32_t>(id));
  }

  std::vector<std::string> contents;
  BytePairs pairs;
  PreTokenizer pre_tokenizer;
  bool ignore_merges;
  std::string end_content;
  AddedTokens added, added_normalized;
  IdsByContent by_content;
  IdsByContent whole;  // with ignore_merges: what a piece may become at once; no added token is among it
};

namespace {

// One text's way; tokens gather and are handed on in portions.
template <typename Parts>
class Encoding {
 public:
  Encoding(const Parts& parts, bool with_special, const Tokenizer::Take& take)
      : parts_(parts), with_special_(with_special), take_(take) {}

  void run(std::string_view text) {
    if (with_special_) {
      parts_.added.split(
          text, [&](std::string_view between) { runs(between); }, [&](std::int32_t id) { tokens_.push_back(id); });
    } else {
      runs(text);
    }
    hand_on();
  }

 private:
  void runs(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t valid = run_of_utf8(text, at, true);
      if (valid > 0) normalize(text.substr(at, valid));
      at += valid;
      const std::size_t other = at < text.size() ? run_of_utf8(text, at, false) : 0;
      if (other > 0) piece(text.substr(at, other));
      at += other;
    }
  }

  void normalize(std::string_view text) {
    if (parts_.pre_tokenizer.is_normalized(text)) return normal(text);
    normal(parts_.pre_tokenizer.normalized(text));
  }

  void normal(std::string_view text) {
    const auto split = [&](std::string_view between) {
      parts_.pre_tokenizer.split(between, [&](std::string_view one) { piece(one); });
    };
    if (!with_special_) return split(text);
    parts_.added_normalized.split(text, split, [&](std::int32_t id) { tokens_.push_back(id); });
  }

  void piece(std::string_view bytes) {
    done_ += bytes.size();
    const auto whole = parts_.ignore_merges ? parts_.whole.find(bytes) : parts_.whole.end();
    if (whole != parts_.whole.end()) {
      tokens_.push_back(whole->second);
    } else {
      parts_.pairs.encode(bytes, tokens_);
    }
    if (tokens_.size() >= kPortion) hand_on();
  }

  void hand_on() {
    take_(tokens_, done_);
    tokens_.clear();
  }

  const Parts& parts_;
  const bool with_special_;
  const Tokenizer::Take& take_;
  std::vector<std::int32_t> tokens_;
  std::size_t done_ = 0;
};

std::vector<std::int32_t> bytes_as_tokens(std::string_view text) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

template <typename Parts>
std::vector<std::int32_t> all_tokens(const Parts& parts, std::string_view text, bool with_special) {
  std::vector<std::int32_t> all;
  const Tokenizer::Take take = [&](const std::vector<std::int32_t>& tokens, std::size_t) {
    all.insert(all.end(), tokens.begin(), tokens.end());
  };
  Encoding<Parts>(parts, with_special, take).run(text);
  return all;
}

}  // namespace

Tokenizer::Tokenizer() : digest_(sha256("bytes")) {}
Tokenizer::Tokenizer(const std::string& tokenizer_json) : path_(tokenizer_json) {
  try {
    parts_ = std::make_unique<const Parts>(read_tokenizer_file(path_));
  } catch (const Error& problem) {
    const std::string what = problem.what();
    throw Error("{}{}", what.starts_with(path_) ? "" : path_ + ": ", what);
  }
  digest_ = sha256_file(path_);
}
Tokenizer::~Tokenizer() = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  return is_bytes() ? bytes_as_tokens(text) : all_tokens(*parts_, text, false);
}

std::vector<std::int32_t> Tokenizer::encode_with_special(std::string_view text) const {
  return is_bytes() ? bytes_as_tokens(text) : all_tokens(*parts_, text, true);
}

void Tokenizer::encode(std::string_view text, const Take& take) const {
  if (!is_bytes()) return Encoding<Parts>(*parts_, false, take).run(text);
  for (std::size_t at = 0; at < text.size(); at += kPortion)
    take(bytes_as_tokens(text.substr(at, kPortion)), std::min(text.size(), at + kPortion));
}

std::string Tokenizer::decode(const std::int32_t* tokens, std::size_t count) const {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary()) continue;
    if (is_bytes()) {
      text += static_cast<char>(tokens[i]);
    } else {
      text += parts_->contents[static_cast<std::size_t>(tokens[i])];
    }
  }
  return text;
}

std::int32_t Tokenizer::vocabulary() const {
  return is_bytes() ? 256 : static_cast<std::int32_t>(parts_->contents.size());
}

std::optional<std::int32_t> Tokenizer::token(const std::string& content) const {
  if (is_bytes()) {
    if (content.size() == 1) return static_cast<unsigned char>(content[0]);
    return std::nullopt;
  }
  const auto found = parts_->by_content.find(content);
  return found == parts_->by_content.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::int32_t> Tokenizer::end_token() const {
  return is_bytes() || parts_->end_content.empty() ? std::nullopt : token(parts_->end_content);
}

std::size_t Tokenizer::bytes() const {
  if (is_bytes()) return 0;
  std::size_t sum = parts_->pairs.bytes();
  for (const std::string& content : parts_->contents) sum += sizeof content + content.size();
  for (const IdsByContent* ids : {&parts_->by_content, &parts_->whole}) {
    sum += ids->bucket_count() * sizeof(void*);
    for (const auto& [content, id] : *ids) sum += sizeof content + sizeof id + content.size() + 3 * sizeof(void*);
  }
  return sum;
}

std::string tokenizer_file_of(const std::string& name_or_path) {
  if (name_or_path.empty() || name_or_path == "bytes") return "";
  return std::filesystem::is_directory(name_or_path) ? name_or_path + "/tokenizer.json" : name_or_path;
}

std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& name_or_path) {
  const std::string path = tokenizer_file_of(name_or_path);
  return path.empty() ? std::make_shared<const Tokenizer>() : std::make_shared<const Tokenizer>(path);
}

}  // namespace troupe
