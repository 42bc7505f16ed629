#include "actors/data/tokenizer_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "actors/data/utf8.h"
#include "kernels/base/error.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr const char* kPatternOfGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::size_t kTokensMax = std::size_t{1} << 24;

// A byte as a letter: printable ones stand for themselves, the others for U+0100 and on, in order.
std::array<char32_t, 256> letters_of_bytes() {
  std::array<char32_t, 256> letters{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    letters[byte] = is_printable ? byte : next++;
  }
  return letters;
}

// Reads one file; `where` in its sentences is the field, as in "pre_tokenizer.pattern".
class Reading {
 public:
  explicit Reading(const std::string& path) : path_(path) {
    const auto letters = letters_of_bytes();
    for (std::size_t byte = 0; byte < 256; ++byte) byte_of_[letters[byte]] = static_cast<char>(byte);
    std::ifstream in(path, std::ios::binary);
    if (!in) throw Error("{}: can't be read; name a tokenizer.json or a folder that holds one", path);
    json_ = json::parse(in);
  }

  TokenizerFile run() {
    for (const char* field : {"truncation", "padding"})
      if (is_given(json_, field)) refuse(field, json_[field], "null");
    read_vocabulary(json_.at("model"));
    read_merges(json_.at("model"));
    if (is_given(json_, "added_tokens")) read_added(json_["added_tokens"]);
    if (is_given(json_, "normalizer")) read_normalizer(json_["normalizer"]);
    if (!is_given(json_, "pre_tokenizer"))
      refuse("pre_tokenizer", json(), "ByteLevel, or a Sequence that ends with it");
    read_pre_tokenizer(json_["pre_tokenizer"]);
    if (!has_byte_level_) refuse("pre_tokenizer", json_["pre_tokenizer"]["type"], "ByteLevel, or a Sequence with it");
    if (is_given(json_, "decoder")) read_decoder(json_["decoder"]);
    read_end(std::filesystem::path(path_).parent_path() / "tokenizer_config.json");
    return std::move(file_);
  }

 private:
  [[noreturn]] void refuse(const std::string& where, const json& found, const std::string& must) const {
    std::string shown = found.dump(-1, ' ', false, json::error_handler_t::replace);
    if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
    throw Error("{}: {} is {}, must be {}", path_, where, shown, must);
  }
  static bool is_given(const json& object, const std::string& field) {
    return object.contains(field) && !object[field].is_null();
  }
  static std::string type_of(const json& object) { return object.value("type", ""); }

  // The bytes that a token's letters stand for; false: it has other letters.
  bool to_bytes(const std::string& letters, std::string& bytes) const {
    for (std::size_t at = 0; at < letters.size();) {
      const CodePoint letter = code_point_at(letters, at);
      const auto found = byte_of_.find(letter.value);
      if (letter.bytes == 0 || found == byte_of_.end()) return false;
      bytes += found->second;
      at += letter.bytes;
    }
    return true;
  }

  void put(std::int64_t id, const std::string& content, const std::string& where) {
    if (id < 0 || id >= static_cast<std::int64_t>(kTokensMax)) refuse(where, id, fmt::format("0..{}", kTokensMax - 1));
    const auto at = static_cast<std::size_t>(id);
    if (file_.contents.size() <= at) file_.contents.resize(at + 1);
    file_.contents[at] = content;
  }

  void read_vocabulary(const json& model) {
    if (model.contains("type") && type_of(model) != "BPE") refuse("model.type", model["type"], "BPE");
    if (model.value("byte_fallback", false))
      refuse("model.byte_fallback", true, "false: bytes are tokens of their own");
    if (is_given(model, "dropout") && model["dropout"] != 0) refuse("model.dropout", model["dropout"], "null");
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (is_given(model, field) && model[field] != "") refuse(std::string("model.") + field, model[field], "empty");
    file_.ignore_merges = model.value("ignore_merges", false);
    file_.bytes.fill(-1);
    for (const auto& [letters, id] : model.at("vocab").items()) {
      std::string bytes;
      const bool is_made_of_bytes = to_bytes(letters, bytes);
      if (!is_made_of_bytes) bytes = letters;
      put(id.get<std::int64_t>(), bytes, "model.vocab." + letters);
      ids_[letters] = id.get<std::int32_t>();
      if (is_made_of_bytes && bytes.size() == 1) file_.bytes[static_cast<unsigned char>(bytes[0])] = ids_[letters];
    }
    if (ids_.size() != static_cast<std::size_t>(std::count_if(file_.contents.begin(), file_.contents.end(),
                                                              [](const std::string& one) { return !one.empty(); })))
      throw Error("{}: model.vocab has two entries with one id, or an empty one", path_);
    for (std::size_t byte = 0; byte < 256; ++byte)
      if (file_.bytes[byte] < 0)
        throw Error("{}: model.vocab has no token for byte {}: it is not byte-level", path_, byte);
  }

  void read_merges(const json& model) {
    std::size_t number = 0;
    for (const json& merge : model.at("merges")) {
      const std::string where = fmt::format("model.merges[{}]", number++);
      std::string left, right;
      if (merge.is_string()) {
        const std::string both = merge.get<std::string>();
        const std::size_t blank = both.find(' ');
        if (blank == std::string::npos || both.find(' ', blank + 1) != std::string::npos)
          refuse(where, merge, "two tokens with a blank between");
        left = both.substr(0, blank), right = both.substr(blank + 1);
      } else {
        if (!merge.is_array() || merge.size() != 2) refuse(where, merge, "two tokens");
        left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
      }
      const auto id = [&](const std::string& letters) {
        const auto found = ids_.find(letters);
        if (found == ids_.end()) refuse(where, merge, "of tokens of model.vocab, as must be what they make");
        return found->second;
      };
      file_.merges.push_back({id(left), id(right), id(left + right)});
    }
  }

  void read_added(const json& tokens) {
    std::size_t number = 0;
    for (const json& token : tokens) {
      const std::string where = fmt::format("added_tokens[{}]", number++);
      AddedToken added{.content = token.at("content").get<std::string>(),
                       .id = 0,
                       .takes_blanks_before = token.value("lstrip", false),
                       .takes_blanks_after = token.value("rstrip", false),
                       .is_normalized = token.value("normalized", !token.value("special", false))};
      if (added.content.empty()) refuse(where + ".content", token["content"], "a text");
      if (token.value("single_word", false)) refuse(where + ".single_word", true, "false");
      put(token.at("id").get<std::int64_t>(), added.content, where + ".id");
      added.id = token["id"].get<std::int32_t>();
      file_.added.push_back(std::move(added));
    }
  }

  void read_normalizer(const json& normalizer) {
    static const std::map<std::string, NormalForm> forms = {
        {"NFC", NormalForm::nfc}, {"NFD", NormalForm::nfd}, {"NFKC", NormalForm::nfkc}, {"NFKD", NormalForm::nfkd}};
    const std::string type = type_of(normalizer);
    if (type == "Sequence") {
      for (const json& one : normalizer.at("normalizers")) read_normalizer(one);
    } else if (const auto found = forms.find(type); found != forms.end()) {
      file_.forms.push_back(found->second);
    } else {
      refuse("normalizer.type", type, "NFC, NFD, NFKC, NFKD, or a Sequence of them");
    }
  }

  void read_pre_tokenizer(const json& step) {
    const std::string type = type_of(step);
    if (has_byte_level_) refuse("pre_tokenizer", type, "nothing after ByteLevel");
    if (type == "Sequence") {
      for (const json& one : step.at("pretokenizers")) read_pre_tokenizer(one);
    } else if (type == "ByteLevel") {
      has_byte_level_ = true;
      file_.steps.push_back({.prefix_space = step.value("add_prefix_space", true),
                             .pattern = step.value("use_regex", true) ? kPatternOfGpt2 : ""});
    } else if (type == "Digits") {
      const bool alone = step.value("individual_digits", false);
      file_.steps.push_back({.prefix_space = false,
                             .pattern = R"(\p{N})",
                             .is_literal = false,
                             .behaviour = alone ? SplitBehaviour::isolated : SplitBehaviour::contiguous});
    } else if (type == "Split") {
      read_split(step);
    } else {
      refuse("pre_tokenizer.type", type, "ByteLevel, Split, Digits, or a Sequence of them");
    }
  }

  void read_split(const json& step) {
    static const std::map<std::string, SplitBehaviour> behaviours = {
        {"Isolated", SplitBehaviour::isolated},
        {"Removed", SplitBehaviour::removed},
        {"MergedWithPrevious", SplitBehaviour::merged_with_previous},
        {"MergedWithNext", SplitBehaviour::merged_with_next},
        {"Contiguous", SplitBehaviour::contiguous}};
    const auto behaviour = behaviours.find(step.value("behavior", ""));
    if (behaviour == behaviours.end())
      refuse("pre_tokenizer.behavior", step.value("behavior", ""),
             "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
    const json& pattern = step.at("pattern");
    const bool is_literal = pattern.contains("String");
    const auto text = pattern.at(is_literal ? "String" : "Regex").get<std::string>();
    if (text.empty()) refuse("pre_tokenizer.pattern", pattern, "a pattern with something in it");
    file_.steps.push_back({.prefix_space = false,
                           .pattern = text,
                           .is_literal = is_literal,
                           .behaviour = behaviour->second,
                           .invert = step.value("invert", false)});
  }

  void read_decoder(const json& decoder) {
    const std::string type = type_of(decoder);
    if (type == "Sequence") {
      for (const json& one : decoder.at("decoders")) read_decoder(one);
    } else if (type != "ByteLevel") {
      refuse("decoder.type", type, "ByteLevel");
    }
  }

  // "eos_token" is a text, or an added token as an object; without it, or without the file, no end is told.
  void read_end(const std::filesystem::path& path) {
    std::ifstream in(path);
    if (!in) return;
    const json config = json::parse(in, nullptr, false);
    if (!config.is_object())
      throw Error("{}: {} beside it is no JSON object: mend it, or take it away", path_, path.string());
    if (!is_given(config, "eos_token")) return;
    const json& end = config["eos_token"];
    const json content = end.is_object() && end.contains("content") ? end["content"] : end;
    if (content.is_string()) file_.end_content = content.get<std::string>();
    const auto& known = file_.contents;
    if (file_.end_content.empty() || std::find(known.begin(), known.end(), file_.end_content) == known.end())
      throw Error("{}: {} beside it has eos_token {}, must be a token of this file", path_, path.string(),
                  end.dump(-1, ' ', false, json::error_handler_t::replace));
  }

  std::string path_;
  json json_;
  std::unordered_map<char32_t, char> byte_of_;
  std::unordered_map<std::string, std::int32_t> ids_;  // of model.vocab
  TokenizerFile file_;
  bool has_byte_level_ = false;
};

}  // namespace

TokenizerFile read_tokenizer_file(const std::string& path) {
  try {
    return Reading(path).run();
  } catch (const json::exception& problem) {
    throw Error("{}: not a tokenizer.json as Hugging Face writes it ({})", path, problem.what());
  }
}

}  // namespace troupe
