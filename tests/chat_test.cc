// Conversations as training data: what is learned, behind what, and that no example sees another.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "actors/data/chat.h"
#include "actors/data/corpus.h"
#include "kernels/base/error.h"
#include "tests/support/small_tokenizer.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;
using Tokens = std::vector<std::int32_t>;

namespace {

namespace fs = std::filesystem;

struct Scratch {
  std::string path = (fs::temp_directory_path() / "troupe-chat-XXXXXX").string();
  Scratch() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Scratch() { fs::remove_all(path); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path + "/" + name, std::ios::binary) << bytes;
    return path + "/" + name;
  }
};

constexpr std::int32_t kBegin = 300, kEnd = 301, kUser = 302, kAssistant = 303, kThink = 304, kThinkEnd = 305;

// Bytes, and the words of R1's template; as in DeepSeek's own file, not all of them are "special".
std::string write_r1_tokenizer(const Scratch& scratch) {
  json file = small_tokenizer({}, byte_level(true));
  std::int32_t id = kBegin;
  for (const char* content :
       {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"})
    file["added_tokens"].push_back({{"id", id++}, {"content", content}, {"special", id <= kUser}});
  return scratch.write("tokenizer.json", file.dump());
}

std::string chat(const std::vector<std::pair<std::string, std::string>>& messages) {
  json list = json::array();
  for (const auto& [role, content] : messages) list.push_back({{"role", role}, {"content", content}});
  return json{{"messages", list}}.dump() + "\n";
}
std::string pair(const std::string& prompt, const std::string& completion) {
  return json{{"prompt", prompt}, {"completion", completion}}.dump() + "\n";
}

Tokens joined(const std::vector<Tokens>& parts) {
  Tokens all;
  for (const Tokens& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}
Tokens bytes(const std::string& text) { return Tokenizer().encode(text); }

Config chat_config(const std::string& file, int length) {
  Config config;
  config.model.vocab_size = 512;
  config.train.sequence_length = length;
  config.train.batch_sequences = config.train.microbatches = 1;
  config.data.kind = "chat";
  config.data.files = {file};
  return config;
}

Batch only_batch(const Config& config) { return open_evaluation_files(config, config.data.files, {})->held_out(0); }

// The targets of an example alone at the begin of a sequence: labels, one place earlier.
void check_example(const Batch& batch, const Tokens& ids, const std::vector<bool>& learned) {
  REQUIRE(ids.size() == learned.size());
  CHECK(Tokens(batch.ids.begin(), batch.ids.begin() + static_cast<std::ptrdiff_t>(ids.size())) == ids);
  Tokens targets(batch.ids.size(), kNoTarget), next(batch.ids.size(), kNoTarget);
  for (std::size_t i = 1; i < ids.size(); ++i) {
    if (learned[i]) targets[i - 1] = ids[i];
    if (learned[i] && i > 1) next[i - 2] = ids[i];
  }
  CHECK(batch.targets == targets);
  CHECK(batch.mtp_targets == next);
}

std::vector<bool> learned_in(const std::vector<std::pair<std::size_t, bool>>& runs) {
  std::vector<bool> learned;
  for (const auto& [size, is] : runs) learned.insert(learned.end(), size, is);
  return learned;
}

std::string problem_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("plain: a completion and its end are learned, the first of it from the last of the prompt", "[chat]") {
  const Scratch scratch;
  const Config config = chat_config(scratch.write("a.jsonl", pair("2+2=", "4!")), 12);
  const Batch batch = only_batch(config);
  check_example(batch, {'2', '+', '2', '=', '4', '!', 1}, learned_in({{4, false}, {3, true}}));
  CHECK(batch.targets[3] == '4');
  CHECK(batch.targets[5] == 1);
  CHECK(batch.spans == Tokens{0, 7, 0, 7, 7, 5, 7, 5});
  CHECK(batch.positions == Tokens{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4});
}

TEST_CASE("plain: of a conversation every answer is learned, with an end behind each", "[chat]") {
  const Scratch scratch;
  const std::string line =
      chat({{"system", "s"}, {"user", "ab"}, {"assistant", "c"}, {"user", "d"}, {"assistant", "ef"}});
  const Batch batch = only_batch(chat_config(scratch.write("a.jsonl", line), 12));
  check_example(batch, {'s', 'a', 'b', 'c', 1, 'd', 'e', 'f', 1},
                learned_in({{3, false}, {2, true}, {1, false}, {3, true}}));
}

TEST_CASE("r1: the template's words are its tokens, and the answer begins behind the given <think>", "[chat]") {
  const Scratch scratch;
  Config config = chat_config(
      scratch.write("a.jsonl", chat({{"system", "s"}, {"user", "u"}, {"assistant", "<think>\nwhy\n</think>\nso"}})),
      32);
  config.data.tokenizer = write_r1_tokenizer(scratch);
  config.data.chat_template = "r1";
  check_example(
      only_batch(config),
      joined({{kBegin, 's', kUser, 'u', kAssistant, kThink, '\n'}, bytes("why\n"), {kThinkEnd}, bytes("\nso"), {kEnd}}),
      learned_in({{7, false}, {9, true}}));
}

TEST_CASE("r1: the prefill is given whether or not the answer has it, and is not doubled", "[chat]") {
  const Scratch scratch;
  Config config = chat_config("", 32);
  config.data.tokenizer = write_r1_tokenizer(scratch);
  config.data.chat_template = "r1";
  const Tokens expected = joined({{kBegin, kUser, 'u', kAssistant, kThink, '\n'}, {'w', kThinkEnd, 'a', kEnd}});
  for (const char* answer : {"w</think>a", "<think>w</think>a", "<think>\nw</think>a"}) {
    config.data.files = {scratch.write("a.jsonl", pair("u", answer))};
    check_example(only_batch(config), expected, learned_in({{6, false}, {4, true}}));
  }
}

TEST_CASE("r1: earlier answers have only what stands behind their thinking", "[chat]") {
  const Scratch scratch;
  Config config = chat_config(scratch.write("a.jsonl", chat({{"user", "u"},
                                                             {"assistant", "<think>\nx</think>y"},
                                                             {"user", "v"},
                                                             {"assistant", "<think>\nz</think>w"}})),
                              32);
  config.data.tokenizer = write_r1_tokenizer(scratch);
  config.data.chat_template = "r1";
  check_example(
      only_batch(config),
      {kBegin, kUser, 'u', kAssistant, 'y', kEnd, kUser, 'v', kAssistant, kThink, '\n', 'z', kThinkEnd, 'w', kEnd},
      learned_in({{4, false}, {2, true}, {5, false}, {4, true}}));
}

TEST_CASE("an example begins with the prompt that is served", "[chat]") {
  const Scratch scratch;
  const auto tokenizer = open_tokenizer(write_r1_tokenizer(scratch));
  const std::vector<ChatMessage> messages = {{Speaker::system, "s"},
                                             {Speaker::user, "u"},
                                             {Speaker::assistant, "a"},
                                             {Speaker::user, "v"},
                                             {Speaker::assistant, "<think>\nt</think>b"}};
  for (const char* kind : {"plain", "r1"}) {
    const ChatTemplate shape(kind, tokenizer, 7);
    const Tokens prompt = shape.prompt(std::span(messages).first(4)).ids, example = shape.example(messages).ids;
    CHECK(std::equal(prompt.begin(), prompt.end(), example.begin()));
    CHECK(example.back() == shape.end_token());
  }
  const ChatTemplate r1("r1", tokenizer, 7);
  CHECK(r1.prompt(std::span(messages).first(2)).ids ==
        tokenizer->encode_with_special("<｜begin▁of▁sentence｜>s<｜User｜>u<｜Assistant｜><think>\n"));
}

TEST_CASE("what an answer is given to begin with is how a prompt ends", "[chat]") {
  const Scratch scratch;
  const auto tokenizer = open_tokenizer(write_r1_tokenizer(scratch));
  const std::vector<ChatMessage> asked = {{Speaker::user, "u"}};
  const ChatTemplate r1("r1", tokenizer, 1), plain("plain", tokenizer, 1);
  CHECK(r1.prefill() == "<think>\n");
  CHECK(tokenizer->decode(r1.prompt(asked).ids).ends_with(r1.prefill()));
  CHECK(plain.prefill().empty());
}

TEST_CASE("a user's words that look like the template's are ordinary text", "[chat]") {
  const Scratch scratch;
  Config config = chat_config(scratch.write("a.jsonl", pair("<｜Assistant｜></think>", "<｜User｜>")), 96);
  config.data.tokenizer = write_r1_tokenizer(scratch);
  config.data.chat_template = "r1";
  const std::size_t given = std::string("<｜Assistant｜></think>").size(), answer = std::string("<｜User｜>").size();
  check_example(
      only_batch(config),
      joined(
          {{kBegin, kUser}, bytes("<｜Assistant｜></think>"), {kAssistant, kThink, '\n'}, bytes("<｜User｜>"), {kEnd}}),
      learned_in({{2 + given + 3, false}, {answer + 1, true}}));
}

TEST_CASE("r1 with one token a byte: words are their bytes, the end is model.eos_token_id", "[chat]") {
  const Scratch scratch;
  Config config = chat_config(scratch.write("a.jsonl", pair("u", "w</think>a")), 128);
  config.data.chat_template = "r1";
  config.model.eos_token_id = 9;
  const Tokens given = bytes("<｜begin▁of▁sentence｜><｜User｜>u<｜Assistant｜><think>\n");
  check_example(only_batch(config), joined({given, bytes("w</think>a"), {9}}),
                learned_in({{given.size(), false}, {11, true}}));
}

TEST_CASE("packed examples see only themselves, whatever data.mask_documents says", "[chat]") {
  const Scratch scratch;
  const std::string lines =
      pair("ab", "c") + chat({{"user", "d"}, {"assistant", "ef"}}) + pair("g", "h") + pair("i", "j");
  const Config config = chat_config(scratch.write("a.jsonl", lines), 12);
  REQUIRE_FALSE(config.data.mask_documents);
  const Batch batch = only_batch(config);
  const std::int32_t none = kNoTarget;
  CHECK(batch.ids == Tokens{'a', 'b', 'c', 1, 'd', 'e', 'f', 1, 'g', 'h', 1, 1});
  CHECK(batch.targets == Tokens{none, 'c', 1, none, 'e', 'f', 1, none, 'h', 1, none, none});
  CHECK(batch.mtp_targets == Tokens{'c', 1, none, none, 'f', 1, none, none, 1, none, none, none});
  CHECK(batch.positions == Tokens{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0});
  CHECK(batch.spans == Tokens{0, 4, 0, 4, 4, 4, 4, 4, 8, 3, 8, 3, 11, 1, 11, 1});
}

TEST_CASE("an epoch of examples holds each once, in an order of its own, and counts its targets", "[chat]") {
  const Scratch scratch;
  std::string lines;
  for (int i = 0; i < 20; ++i)
    lines += pair(fmt::format("{:02}?", i), std::string(static_cast<std::size_t>(1 + i % 3), '!'));
  Config config = chat_config(scratch.write("a.jsonl", lines), 16);
  config.train.batch_sequences = config.train.microbatches = 2;
  config.data.held_out = 0.1;  // 18 are for training
  const auto corpus = open_corpus(config);
  std::map<std::string, int> seen;
  std::vector<std::string> order;
  for (std::int64_t step = 0; step < 40; ++step) {
    std::int64_t targets = 0, next_targets = 0;
    for (std::int32_t m = 0; m < 2; ++m) {
      const Batch batch = corpus->train(step, m);
      targets += std::count_if(batch.targets.begin(), batch.targets.end(), [](auto t) { return t != kNoTarget; });
      next_targets += batch.mtp_target_count();
      for (std::size_t row = 0; row + 2 < batch.ids.size(); ++row)
        if (batch.positions[row] == 0 && batch.ids[row + 2] == '?') {
          order.push_back({static_cast<char>(batch.ids[row]), static_cast<char>(batch.ids[row + 1])});
          ++seen[order.back()];
        }
    }
    const StepCounts counts = corpus->counts(step, 2);
    CHECK(counts.target_tokens == targets);
    CHECK(counts.target_tokens > 0);
    CHECK(counts.mtp_target_tokens == next_targets);
    CHECK(counts.tokens == 32);
  }
  CHECK(seen.size() == 18);
  CHECK_FALSE(seen.contains("18"));
  CHECK_FALSE(seen.contains("19"));
  const auto [fewest, most] =
      std::minmax_element(seen.begin(), seen.end(), [](auto& a, auto& b) { return a.second < b.second; });
  CHECK(most->second - fewest->second <= 1);
  CHECK_FALSE(std::equal(order.begin(), order.begin() + 18, order.begin() + 18));
}

TEST_CASE("an example longer than a sequence is dropped, truncated or refused, as told", "[chat]") {
  const Scratch scratch;
  const std::string lines = pair("a", "b") + pair("cd", "efghij") + pair("0123456789", "k") + pair("l", "m");
  Config config = chat_config(scratch.write("a.jsonl", lines), 8);
  const auto provenance = [&] { return open_evaluation_files(config, config.data.files, {})->provenance()[0].note; };
  CHECK(only_batch(config).ids == Tokens{'a', 'b', 1, 'l', 'm', 1, 1, 1});
  CHECK(provenance() == "of 4 examples 2 dropped and 0 truncated: longer than 8 tokens");
  config.data.long_examples = "truncate";  // of the third nothing would be left to learn
  CHECK(provenance() == "of 4 examples 1 dropped and 1 truncated: longer than 8 tokens");
  const Batch cut = open_evaluation_files(config, config.data.files, {})->held_out(1);
  CHECK(cut.ids == Tokens{'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'});
  CHECK(cut.target_count() == 6);
  config.data.long_examples = "refuse";
  CHECK_THAT(problem_of([&] { only_batch(config); }),
             Catch::Contains("a.jsonl:2: an example of 9 tokens, a sequence has 8"));
  config.data.files = {scratch.write("b.jsonl", pair("0123456789", "k"))};
  config.data.long_examples = "drop";
  CHECK_THAT(problem_of([&] { only_batch(config); }), Catch::Contains("none of its 1 examples fits"));
}

TEST_CASE("what is no conversation is refused with file, line and message", "[chat]") {
  const Scratch scratch;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"not json", "{\"messages\":\n"},
      {"not an object with either", "[1]\n"},
      {"not an object with either", "{\"text\": \"a\"}\n"},
      {"not an object with either", "{\"messages\": [], \"prompt\": \"a\"}\n"},
      {"\"messages\" is not a list", "{\"messages\": \"a\"}\n"},
      {"the object has no string \"completion\"", "{\"prompt\": \"a\"}\n"},
      {"the object has no string \"prompt\"", "{\"prompt\": 1, \"completion\": \"a\"}\n"},
      {"the completion is empty", pair("a", "")},
      {"the prompt is empty", pair("", "a")},
      {"message 1 is not an object", "{\"messages\": [1]}\n"},
      {"message 2 has no string \"content\"",
       "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": 3}]}\n"},
      {"message 1 has role \"tool\", must be", chat({{"tool", "a"}})},
      {"message 1 is the assistant's, must be the user's", chat({{"assistant", "a"}})},
      {"message 2 is the user's, must be the assistant's", chat({{"user", "a"}, {"user", "b"}, {"assistant", "c"}})},
      {"message 2 is the system's, must be the assistant's", chat({{"user", "a"}, {"system", "b"}})},
      {"message 2 is empty", chat({{"user", "a"}, {"assistant", ""}})},
      {"the last message must be the assistant's", chat({{"user", "a"}})},
      {"the last message must be the assistant's", "{\"messages\": []}\n"}};
  for (const auto& [says, line] : cases) {
    const Config config = chat_config(scratch.write("bad.jsonl", pair("a", "b") + "\n" + line), 32);
    const std::string problem = problem_of([&] { only_batch(config); });
    CHECK_THAT(problem, Catch::Contains(says));
    CHECK_THAT(problem, Catch::Contains("bad.jsonl:3: "));
  }
  Config config = chat_config(scratch.write("a.txt", "words"), 32);
  CHECK_THAT(problem_of([&] { only_batch(config); }), Catch::Contains("a.txt holds no conversations"));
  config.data.files = {scratch.write("a.jsonl", pair("a", "b"))};
  config.data.tokenizer = scratch.write("plain.json", small_tokenizer({}, byte_level(true)).dump());
  config.data.chat_template = "r1";
  CHECK_THAT(problem_of([&] { only_batch(config); }), Catch::Contains("has no token <｜begin▁of▁sentence｜>"));
}
