// `troupe tokenize`, and runs whose tokens a tokenizer.json makes, as a person meets them.
#include <algorithm>
#include <filesystem>

#include "actors/data/token_file.h"
#include "actors/data/tokenizer.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;

namespace {

namespace fs = std::filesystem;

const std::string kTokenizer = TROUPE_SOURCE_DIR "/tests/fixtures/tokenizer/qwen2style_2k";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string story() {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "The quick brown fox counts " + std::to_string(i * i) + " dogs.\n";
  return text;
}

Arguments tokenize(const std::vector<std::string>& files, const std::string& out, const Arguments& more) {
  Arguments all = {"tokenize"};
  all.insert(all.end(), files.begin(), files.end());
  for (const std::string& one : {std::string("--tokenizer"), kTokenizer, std::string("--out"), out}) all.push_back(one);
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Ended expect_success(const Arguments& arguments) {
  Ended ended = troupe::test::troupe(arguments);
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

}  // namespace

TEST_CASE("troupe tokenize writes the same bytes each time: texts as they are, documents with their end", "[tokens]") {
  const Folder folder;
  write_file(folder / "a.txt", story());
  write_file(folder / "b.jsonl", "{\"body\": \"one\"}\n\n{\"body\": \"two words\"}\n");
  const Arguments more = {"--eos", "<|endoftext|>", "--text-key", "body"};
  const Ended ended = expect_success(tokenize({folder / "a.txt", folder / "b.jsonl"}, folder / "one.tokens", more));
  expect_success(tokenize({folder / "a.txt", folder / "b.jsonl"}, folder / "two.tokens", more));
  CHECK(read_file(folder / "one.tokens") == read_file(folder / "two.tokens"));
  CHECK_FALSE(fs::exists(folder / "one.tokens.partial"));
  CHECK(has(ended.out, "of 3 documents"));
  const troupe::MappedTokens tokens(folder / "one.tokens");
  const auto tokenizer = troupe::open_tokenizer(kTokenizer);
  std::vector<std::int32_t> expected = tokenizer->encode(story());
  CHECK(tokens.document_start(1) == expected.size());
  for (const char* text : {"one", "two words"}) {
    for (const std::int32_t token : tokenizer->encode(text)) expected.push_back(token);
    expected.push_back(2048);
  }
  REQUIRE(tokens.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) REQUIRE(tokens.at(i) == expected[i]);
}

TEST_CASE("troupe tokenize says what it can't do, and leaves no file", "[tokens]") {
  const Folder folder;
  write_file(folder / "a.txt", "some text");
  write_file(folder / "empty.txt", "");
  write_file(folder / "b.jsonl", "{\"text\": \"one\"}\n{\"text\": 2}\n");
  const auto refusal = [&](const std::string& file, const Arguments& more) {
    const Ended ended = troupe::test::troupe(tokenize({folder / file}, folder / "out.tokens", more));
    CHECK(ended.code == 1);
    CHECK_FALSE(fs::exists(folder / "out.tokens"));
    CHECK_FALSE(fs::exists(folder / "out.tokens.partial"));
    return ended.err;
  };
  CHECK(has(refusal("none.txt", {}), "none.txt: No such file"));
  CHECK(has(refusal("empty.txt", {}), "empty.txt is empty"));
  CHECK(has(refusal("b.jsonl", {}), "doesn't tell which token ends one"));
  CHECK(has(refusal("b.jsonl", {"--eos", "<end>"}), "has no token \"<end>\""));
  CHECK(has(refusal("b.jsonl", {"--eos", "<|im_end|>"}), "b.jsonl:2: not an object with a string \"text\""));
  const Ended ended =
      troupe::test::troupe({"tokenize", folder / "a.txt", "--tokenizer", folder / "none", "--out", folder / "x"});
  CHECK(ended.code == 1);
  CHECK(has(ended.err, "none: can't be read; name a tokenizer.json or a folder that holds one"));
}

TEST_CASE("a run on tokens is told, talked to and exported with its tokenizer", "[tokens]") {
  const Folder folder;
  write_file(folder / "a.txt", story());
  fs::copy(kTokenizer, folder / "tokenizer");
  expect_success(tokenize({folder / "a.txt"}, folder / "a.tokens", {}));
  const Arguments sets = {"data.kind=\"text\"", "data.files=\"" + (folder / "a.tokens") + "\"",
                          "data.tokenizer=\"" + (folder / "tokenizer") + "\"", "model.vocab_size=2051",
                          "train.steps=2"};
  expect_success(tiny_run(folder / "run", sets));
  write_file(folder / "other.json", read_file(kTokenizer + "/tokenizer.json") + "\n");
  Arguments others = sets;
  others.push_back("data.tokenizer=\"" + (folder / "other.json") + "\"");
  const Ended refused = troupe::test::troupe(tiny_resume(folder / "run", others));
  CHECK(refused.code == 1);
  CHECK(has(refused.err, "is not the tokenizer that " + (folder / "run") + " began with"));
  fs::remove_all(folder / "tokenizer");  // the run's folder has its own
  const Ended written = expect_success(
      {"generate", folder / "run", "--prompt", "The quick", "--tokens", "4", "--set", "device.threads=1"});
  CHECK(written.out.starts_with("The quick"));
  expect_success({"export", folder / "run", folder / "model"});
  CHECK(read_file(folder / "model/tokenizer.json") == read_file(kTokenizer + "/tokenizer.json"));
  const Ended again = expect_success(
      {"generate", folder / "model", "--prompt", "The quick", "--tokens", "4", "--set", "device.threads=1"});
  CHECK(again.out == written.out);
}

TEST_CASE("a run learns answers from conversations, tells what it left out, and is asked as it was taught", "[chat]") {
  const Folder folder;
  std::string lines = "{\"prompt\": \"" + std::string(300, 'x') + "\", \"completion\": \"too long\"}\n";
  for (int i = 0; i < 40; ++i) lines += "{\"prompt\": \"say a\", \"completion\": \"aaaa\"}\n";
  write_file(folder / "a.jsonl", lines);
  const Arguments sets = {"data.kind=\"chat\"",       "data.files=\"" + (folder / "a.jsonl") + "\"",
                          "model.vocab_size=256",     "train.steps=60",
                          "train.learning_rate=0.01", "model.eos_token_id=0"};
  expect_success(tiny_run(folder / "run", sets));
  const std::string manifest = read_file(checkpoints_of(folder / "run").back() + "/manifest.json");
  CHECK(has(manifest, "of 41 examples 1 dropped and 0 truncated"));
  CHECK(has(read_file(folder / "run/logs/node-0.log"), "event=data"));
  const Ended written = expect_success(
      {"generate", folder / "run", "--chat", "--prompt", "say a", "--tokens", "12", "--set", "device.threads=1"});
  CHECK(written.out == "say aaaaa\n");  // and there it ends
}
