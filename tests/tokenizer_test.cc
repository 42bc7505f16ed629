// Tokenizers: the tokens that the reference gives, and that no byte is ever lost.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/data/pattern.h"
#include "actors/data/tokenizer.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"
#include "tests/support/small_tokenizer.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

const std::string kFixture = TROUPE_SOURCE_DIR "/tests/fixtures/tokenizer/qwen2style_2k";
// Larger references, not part of the repository; their cases are left out where they are not there.
const std::string kBeside = TROUPE_SOURCE_DIR "/../shared/data";

struct Scratch {
  std::string path = (fs::temp_directory_path() / "troupe-tokenizer-XXXXXX").string();
  Scratch() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Scratch() { fs::remove_all(path); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path + "/" + name, std::ios::binary) << bytes;
    return path + "/" + name;
  }
};

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

json split_by(const std::string& regex, const std::string& behaviour = "Isolated", bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behaviour}, {"invert", invert}};
}
json sequence_of(json steps) {
  steps.push_back(byte_level(false));
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

const std::string kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const std::vector<std::string> kDeepSeek = {
    "\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"};

json deepseek_steps() {
  json steps = json::array();
  for (const std::string& pattern : kDeepSeek) steps.push_back(split_by(pattern));
  return sequence_of(steps);
}

using Pieces = std::vector<std::string>;

// How a text is cut: every piece becomes one token, because the merges make it from left to right.
Pieces pieces_of(const json& pre_tokenizer, const std::string& text, const Scratch& scratch) {
  // With ignore_merges, a piece that stands in the vocabulary is one token; all parts of the text stand in it.
  json made = small_tokenizer({}, pre_tokenizer);
  made["model"]["ignore_merges"] = true;
  int next = 256;
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    for (std::size_t size = 2; begin + size <= text.size(); ++size) {
      const std::string letters = letters_of(text.substr(begin, size));
      if (!made["model"]["vocab"].contains(letters)) made["model"]["vocab"][letters] = next++;
    }
  }
  const Tokenizer tokenizer(scratch.write("pieces.json", made.dump()));
  Pieces pieces;
  for (const std::int32_t token : tokenizer.encode(text)) pieces.push_back(tokenizer.decode({token}));
  return pieces;
}

std::string sha256_of_words(const std::vector<std::int32_t>& tokens) {
  std::string bytes;
  for (const std::int32_t token : tokens) {
    bytes += static_cast<char>(token & 0xff);
    bytes += static_cast<char>(token >> 8);
  }
  return sha256(bytes);
}

void check_cases(const std::string& folder) {
  const Tokenizer tokenizer(folder + "/tokenizer.json");
  const json cases = json::parse(read_all(folder + "/cases.json"));
  for (const json& one : cases["cases"]) {
    INFO(one["text"].dump());
    CHECK(tokenizer.encode(one["text"].get<std::string>()) == one["ids"].get<std::vector<std::int32_t>>());
  }
  for (const json& one : cases["special_cases"]) {
    INFO(one["text"].dump());
    CHECK(tokenizer.encode_with_special(one["text"].get<std::string>()) == one["ids"].get<std::vector<std::int32_t>>());
  }
  CHECK(cases["cases"].size() + cases["special_cases"].size() == 196);
}

void check_document(const json& expected, const std::vector<std::int32_t>& tokens) {
  CHECK(tokens.size() == expected["n_tokens"]);
  CHECK(sha256_of_words(tokens) == expected["sha256_u16le"]);
}

void check_documents(const std::string& folder) {
  const Tokenizer tokenizer(folder + "/tokenizer.json");
  const json documents = json::parse(read_all(folder + "/cases.json"))["documents"];
  const std::string play = read_all(kBeside + "/text/tinyshakespeare.txt");
  const std::vector<std::int32_t> tokens = tokenizer.encode(play);
  check_document(documents["tinyshakespeare.txt"], tokens);
  CHECK(tokenizer.decode(tokens) == play);
  std::ifstream lines(kBeside + "/gsm8k/train.jsonl");
  std::string questions;
  for (std::string line; std::getline(lines, line);)
    questions += (questions.empty() ? "" : "\n") + json::parse(line)["question"].get<std::string>();
  check_document(documents["gsm8k_train_questions"], tokenizer.encode(questions));
}

// Bytes of every kind: ASCII, letters of other scripts, broken UTF-8, runs of blanks.
std::string drawn_bytes(std::uint64_t seed) {
  const std::uint64_t key = random_key(seed, "bytes");
  static const Pieces parts = {
      " ",        "  ",       "\n",    "'s",         "é",    "e\xcc\x81",        "\xff", "\xe4\xb8", "中文",
      "\xed\xa0", "\xc0\x80", "12345", "<|im_end|>", "\r\n", "\xf4\x90\x80\x80", "word"};
  std::string text;
  for (std::uint64_t i = 0; i < 40; ++i) {
    if (random_below(3, key, i) == 0) {
      text += static_cast<char>(random_below(256, key, i, 1));
    } else {
      text += parts[random_below(parts.size(), key, i, 2)];
    }
  }
  return text;
}

std::string problem_of(const json& tokenizer) {
  const Scratch scratch;
  try {
    const Tokenizer made(scratch.write("tokenizer.json", tokenizer.dump()));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("the tokens of a Qwen2-like tokenizer are the reference's, special ones too", "[tokenizer]") {
  check_cases(kFixture);
}

TEST_CASE("GPT-2's tokens, and whole documents, are the reference's", "[tokenizer]") {
  if (!fs::exists(kBeside + "/tokenizer/gpt2")) {
    WARN("no " << kBeside << "/tokenizer/gpt2: left out");
    return;
  }
  check_cases(kBeside + "/tokenizer/gpt2");
  check_documents(kBeside + "/tokenizer/gpt2");
  check_documents(kFixture);
}

TEST_CASE("every string of bytes comes back from its tokens", "[tokenizer]") {
  const Scratch scratch;
  json gpt2 = small_tokenizer({{"t", "h"}, {" ", "th"}, {"\xe4", "\xb8"}, {"\xff", "\xff"}}, byte_level(true));
  gpt2["added_tokens"] = {{{"id", 300}, {"content", "<|im_end|>"}, {"special", true}}};
  json llama = small_tokenizer({{"1", "2"}}, sequence_of({split_by(kLlama3)}));
  const json deepseek = small_tokenizer({{"\xe4", "\xb8"}}, deepseek_steps());
  for (const json& file : {gpt2, llama, deepseek}) {
    const Tokenizer tokenizer(scratch.write("tokenizer.json", file.dump()));
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      const std::string text = drawn_bytes(seed);
      REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
      REQUIRE(tokenizer.decode(tokenizer.encode_with_special(text)) == text);
    }
  }
  const Tokenizer bytes;
  CHECK(bytes.decode(bytes.encode(drawn_bytes(1))) == drawn_bytes(1));
  CHECK(bytes.encode("a\xff") == std::vector<std::int32_t>{97, 255});
}

TEST_CASE("a normal form changes valid text only, and bytes around it stay as they are", "[tokenizer]") {
  const Tokenizer tokenizer(kFixture + "/tokenizer.json");
  const auto through = [&](const std::string& text) { return tokenizer.decode(tokenizer.encode(text)); };
  CHECK(through("e\xcc\x81") == "é");
  CHECK(through("\xff"
                "e\xcc\x81\xe4\xb8") == "\xffé\xe4\xb8");
  CHECK(through("e\xff\xcc\x81") == "e\xff\xcc\x81");  // the bytes between keep them apart
}

TEST_CASE("Llama 3 cuts numbers in threes, and takes a line's end to the signs before it", "[tokenizer]") {
  const Scratch scratch;
  const auto cut = [&](const std::string& text) { return pieces_of(sequence_of({split_by(kLlama3)}), text, scratch); };
  CHECK(cut("I'LL pay 12345$!\n\n  now") == Pieces{"I", "'LL", " pay", " ", "123", "45", "$!\n\n", " ", " now"});
  CHECK(cut("a  \n b   ") == Pieces{"a", "  \n", " b", "   "});
  CHECK(cut("(word)") == Pieces{"(word", ")"});
}

TEST_CASE("DeepSeek-V3 cuts numbers, then Han and kana, then the rest", "[tokenizer]") {
  const Scratch scratch;
  const auto cut = [&](const std::string& text) { return pieces_of(deepseek_steps(), text, scratch); };
  CHECK(cut("x12345 中文ab かな") == Pieces{"x", "123", "45", " ", "中文", "ab", " ", "かな"});
  CHECK(cut("f.read() $5 -x") == Pieces{"f", ".read", "()", " $", "5", " -", "x"});
  CHECK(cut("cafe\xcc\x81 \n\n z") == Pieces{"cafe\xcc\x81", " \n\n", " z"});
}

TEST_CASE("white space is Unicode's: U+0085 and U+00A0 are, U+200B and U+180E are not", "[tokenizer]") {
  const Scratch scratch;
  const auto cut = [&](const std::string& regex, const std::string& text) {
    return pieces_of(sequence_of({split_by(regex)}), text, scratch);
  };
  const std::string next_line = "\xc2\x85", no_break = "\xc2\xa0", zero_width = "\xe2\x80\x8b", vowel = "\xe1\xa0\x8e";
  for (const std::string& space : {next_line, no_break}) {
    CHECK(cut("\\s+", "a" + space + space + "b") == Pieces{"a", space + space, "b"});
    CHECK(cut("\\S+", "a" + space + "b") == Pieces{"a", space, "b"});
    CHECK(cut("[^\\s]+", "ab" + space) == Pieces{"ab", space});
    CHECK(cut("[\\S]+", "ab" + space) == Pieces{"ab", space});
  }
  for (const std::string& other : {zero_width, vowel}) {
    CHECK(cut("\\s", "a" + other + "b") == Pieces{"a" + other + "b"});
    CHECK(cut("\\S+", " " + other + " ") == Pieces{" ", other, " "});
    CHECK(cut("[^\\s]+", " " + other) == Pieces{" ", other});
    CHECK(cut("[\\S]+", " " + other) == Pieces{" ", other});
  }
}

TEST_CASE("a split does with its matches what its behaviour says", "[tokenizer]") {
  const Scratch scratch;
  const auto cut = [&](const std::string& behaviour, bool invert) {
    return pieces_of(sequence_of({split_by("-", behaviour, invert)}), "a-b--c-", scratch);
  };
  CHECK(cut("Isolated", false) == Pieces{"a", "-", "b", "-", "-", "c", "-"});
  CHECK(cut("Removed", false) == Pieces{"a", "b", "c"});
  CHECK(cut("MergedWithPrevious", false) == Pieces{"a-", "b-", "-", "c-"});
  CHECK(cut("MergedWithNext", false) == Pieces{"a", "-b", "-", "-c", "-"});
  CHECK(cut("Contiguous", false) == Pieces{"a", "-", "b", "--", "c", "-"});
  CHECK(cut("Removed", true) == Pieces{"-", "-", "-", "-"});
  json literal = split_by("");
  literal["pattern"] = {{"String", "a."}};
  CHECK(pieces_of(sequence_of({literal}), "xa.ab", scratch) == Pieces{"x", "a.", "ab"});
  const auto digits = [&](bool alone) {
    return pieces_of(sequence_of({{{"type", "Digits"}, {"individual_digits", alone}}}), "ab12c", scratch);
  };
  CHECK(digits(true) == Pieces{"ab", "1", "2", "c"});
  CHECK(digits(false) == Pieces{"ab", "12", "c"});
  json prefixed = byte_level(true);
  prefixed["add_prefix_space"] = true;
  const Tokenizer tokenizer(scratch.write("prefix.json", small_tokenizer({}, prefixed).dump()));
  CHECK(tokenizer.decode(tokenizer.encode("ab c")) == " ab c");
  CHECK(tokenizer.decode(tokenizer.encode(" ab")) == " ab");
}

TEST_CASE("of two merges the one listed first is made, and of equal ones the leftmost", "[tokenizer]") {
  const Scratch scratch;
  const auto tokenizer_of = [&](const json& file) {
    return Tokenizer(scratch.write("t.json", file.dump())).encode("abcaaa");
  };
  json file = small_tokenizer({{"b", "c"}, {"a", "b"}, {"a", "a"}}, sequence_of(json::array()));
  CHECK(tokenizer_of(file) == std::vector<std::int32_t>{97, 256, 258, 97});
  file["model"]["merges"] = json::array(
      {json::array({"b", "c"}), json::array({"a", "b"}), json::array({"a", "a"})});  // as newer files write them
  CHECK(tokenizer_of(file) == std::vector<std::int32_t>{97, 256, 258, 97});
  file["model"]["vocab"]["abcaaa"] = 259;
  CHECK(tokenizer_of(file) == std::vector<std::int32_t>{97, 256, 258, 97});
  file["model"]["ignore_merges"] = true;
  CHECK(tokenizer_of(file) == std::vector<std::int32_t>{259});
}

TEST_CASE("a long piece has the tokens that looking at all pairs each time gives", "[tokenizer]") {
  const Scratch scratch;
  json file = json::parse(read_all(kFixture + "/tokenizer.json"));
  file["pre_tokenizer"] = byte_level(false);  // the text is one piece
  const Tokenizer tokenizer(scratch.write("t.json", file.dump()));
  const json& model = file["model"];
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<int, std::int32_t>> merges;
  for (const json& merge : model["merges"]) {
    const auto both = merge.get<std::string>();
    const std::string left = both.substr(0, both.find(' ')), right = both.substr(both.find(' ') + 1);
    merges[{model["vocab"][left], model["vocab"][right]}] = {static_cast<int>(merges.size()),
                                                             model["vocab"][left + right]};
  }
  std::string text;
  for (std::uint64_t i = 0; text.size() < 3000; ++i)
    text += Pieces{"the ", "aaaa", " and", "ing", "\n", "q", "tion"}[random_below(7, 1, i)];
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(model["vocab"][letters_of(std::string(1, c))]);
  while (true) {
    std::pair<int, std::size_t> best{1 << 30, 0};
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = merges.find({tokens[i], tokens[i + 1]});
      if (found != merges.end()) best = std::min(best, {found->second.first, i});
    }
    if (best.first == 1 << 30) break;
    tokens[best.second] = merges.at({tokens[best.second], tokens[best.second + 1]}).second;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best.second) + 1);
  }
  CHECK(tokenizer.encode(text) == tokens);
}

TEST_CASE("added tokens: the longest at the leftmost place, with the blanks that they take", "[tokenizer]") {
  const Scratch scratch;
  json file = small_tokenizer({}, byte_level(true));
  file["added_tokens"] = {{{"id", 300}, {"content", "<a>"}, {"special", true}, {"normalized", false}},
                          {{"id", 301}, {"content", "<a>b"}, {"special", false}, {"normalized", true}},
                          {{"id", 302}, {"content", "<a><a>"}, {"special", true}, {"normalized", false}},
                          {{"id", 303}, {"content", "|l|"}, {"special", true}, {"lstrip", true}},
                          {{"id", 304}, {"content", "|r|"}, {"special", true}, {"rstrip", true}}};
  const Tokenizer tokenizer(scratch.write("t.json", file.dump()));
  using Tokens = std::vector<std::int32_t>;
  CHECK(tokenizer.encode_with_special("x<a><a><a>y") == Tokens{'x', 302, 300, 'y'});
  CHECK(tokenizer.encode_with_special("x \xc2\xa0|l| y|r|\n z") == Tokens{'x', 303, ' ', 'y', 304, 'z'});
  CHECK(tokenizer.encode("<a>") == Tokens{'<', 'a', '>'});
  CHECK(tokenizer.token("<a>b") == 301);
  CHECK(tokenizer.token("a") == 97);
  CHECK_FALSE(tokenizer.token("ab").has_value());
  CHECK(tokenizer.vocabulary() == 305);
  CHECK(tokenizer.decode({300, 290, 97, 4000, -1}) == "<a>a");  // there is no token 290
}

TEST_CASE("a tokenizer is opened by its name, its file or its folder, and knows its end token", "[tokenizer]") {
  CHECK(open_tokenizer("")->is_bytes());
  CHECK(open_tokenizer("bytes")->vocabulary() == 256);
  CHECK(open_tokenizer(kFixture)->digest() == sha256_file(kFixture + "/tokenizer.json"));
  CHECK(open_tokenizer(kFixture + "/tokenizer.json")->vocabulary() == 2051);
  CHECK_FALSE(open_tokenizer(kFixture)->end_token().has_value());
  const Scratch scratch;
  scratch.write("tokenizer.json", read_all(kFixture + "/tokenizer.json"));
  scratch.write("tokenizer_config.json", R"({"eos_token": {"content": "<|im_end|>"}})");
  CHECK(open_tokenizer(scratch.path)->end_token() == 2050);
  CHECK_THROWS_WITH(open_tokenizer(scratch.path + "/none"), Catch::Contains("none: can't be read"));
}

TEST_CASE("an end token that can't be told is refused, and one that isn't told is not", "[tokenizer]") {
  const Scratch scratch;
  scratch.write("tokenizer.json", read_all(kFixture + "/tokenizer.json"));
  for (const std::string config : {R"({})", R"({"eos_token": null})", R"({"bos_token": "<|none|>"})"}) {
    scratch.write("tokenizer_config.json", config);
    CHECK_FALSE(open_tokenizer(scratch.path)->end_token().has_value());
  }
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{\"eos_token\":", "is no JSON object"},
      {"[]", "is no JSON object"},
      {R"({"eos_token": "<|none|>"})", "has eos_token \"<|none|>\", must be a token of this file"},
      {R"({"eos_token": {"content": "<|none|>"}})", "has eos_token {\"content\":\"<|none|>\"}"},
      {R"({"eos_token": ""})", "has eos_token \"\""},
      {R"({"eos_token": 7})", "has eos_token 7"}};
  for (const auto& [config, says] : cases) {
    scratch.write("tokenizer_config.json", config);
    CHECK_THROWS_WITH(open_tokenizer(scratch.path),
                      Catch::Contains("tokenizer_config.json beside it") && Catch::Contains(says));
  }
}

TEST_CASE("what a tokenizer.json may ask and can't be done is refused by its name", "[tokenizer]") {
  const json good = small_tokenizer({{"a", "b"}}, byte_level(true));
  CHECK(problem_of(good).empty());
  const std::vector<std::pair<std::string, std::function<void(json&)>>> cases = {
      {"model.type is \"Unigram\", must be BPE", [](json& t) { t["model"]["type"] = "Unigram"; }},
      {"model.byte_fallback", [](json& t) { t["model"]["byte_fallback"] = true; }},
      {"model.dropout is 0.1", [](json& t) { t["model"]["dropout"] = 0.1; }},
      {"model.end_of_word_suffix is \"</w>\"", [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }},
      {"no token for byte 97",
       [](json& t) {
         t["model"]["vocab"].erase("a");
         t["model"]["merges"].clear();
       }},
      {"two entries with one id", [](json& t) { t["model"]["vocab"]["zz"] = 5; }},
      {"model.merges[0] is \"ab\"", [](json& t) { t["model"]["merges"] = {"ab"}; }},
      {"model.merges[0] is \"a x\"", [](json& t) { t["model"]["merges"] = {"a x"}; }},
      {"normalizer.type is \"Lowercase\"",
       [](json& t) {
         t["normalizer"] = {{"type", "Lowercase"}};
       }},
      {"pre_tokenizer.type is \"Metaspace\"",
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "Metaspace"}};
       }},
      {"pre_tokenizer is null", [](json& t) { t["pre_tokenizer"] = nullptr; }},
      {"must be ByteLevel, or a Sequence with it", [](json& t) { t["pre_tokenizer"] = split_by("a"); }},
      {"pre_tokenizer.behavior", [](json& t) { t["pre_tokenizer"] = sequence_of({split_by("a", "Wild")}); }},
      {"may match nothing", [](json& t) { t["pre_tokenizer"] = sequence_of({split_by("a*")}); }},
      {"\\b is not supported", [](json& t) { t["pre_tokenizer"] = sequence_of({split_by("\\ba")}); }},
      {"can't be compiled", [](json& t) { t["pre_tokenizer"] = sequence_of({split_by("(a")}); }},
      {"decoder.type is \"WordPiece\"",
       [](json& t) {
         t["decoder"] = {{"type", "WordPiece"}};
       }},
      {"single_word",
       [](json& t) {
         t["added_tokens"] = {{{"id", 300}, {"content", "x"}, {"single_word", true}}};
       }},
      {"truncation",
       [](json& t) {
         t["truncation"] = {{"max_length", 8}};
       }},
      {"not a tokenizer.json as Hugging Face writes it", [](json& t) { t.erase("model"); }}};
  for (const auto& [says, spoil] : cases) {
    json file = good;
    spoil(file);
    const std::string problem = problem_of(file);
    CHECK_THAT(problem, Catch::Contains(says));
    CHECK_THAT(problem, Catch::Contains("tokenizer.json: "));
  }
}

TEST_CASE("a pattern means to PCRE2 what it means to Oniguruma, or is refused", "[tokenizer]") {
  CHECK(pattern_for_pcre2("(?i:'s)|\\p{L}+") == "(?i:'s)|\\p{L}+");
  CHECK(pattern_for_pcre2("\\p{Han}[\\p{^Lu}\\d]") == "\\p{sc:Han}[\\p{^Lu}\\p{Nd}]");
  CHECK(pattern_for_pcre2("\\u4e00\\x41\\v") == "\\x{4e00}\\x{41}\\x{b}");
  for (const std::string pattern : {"\\h", "\\Ra", "(?m:a.)", "(?<n>a)", "[a[b]]", "[a&&b]", "a{1,2}+", "\\1", "[\\W]",
                                    "a\\", "a(?i)b|c", "(?:(?-i)a)", "\\p", "\\p{", "\\pL}"})
    CHECK_THROWS_AS(pattern_for_pcre2(pattern), Error);
  CHECK(pattern_for_pcre2("(?i)a|b") == "(?i)a|b");
}
