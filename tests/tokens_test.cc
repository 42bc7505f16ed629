// Files of tokens, and sources whose tokens are not bytes.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/data/corpus.h"
#include "actors/data/token_file.h"
#include "kernels/base/error.h"

using namespace troupe;

namespace {

namespace fs = std::filesystem;

const std::string kTokenizer = TROUPE_SOURCE_DIR "/tests/fixtures/tokenizer/qwen2style_2k";

struct Scratch {
  std::string path = (fs::temp_directory_path() / "troupe-tokens-XXXXXX").string();
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

Config small_config(const std::vector<std::string>& files) {
  Config config;
  config.model.vocab_size = 2051;
  config.model.eos_token_id = 3;
  config.train.sequence_length = 16;
  config.train.batch_sequences = 4;
  config.train.microbatches = 2;
  config.data.files = files;
  config.data.tokenizer = kTokenizer;
  return config;
}

// Documents of these sizes whose tokens count from 0 on.
std::string write_tokens(const std::string& path, const std::vector<int>& sizes, std::int32_t vocabulary,
                         std::int32_t end_token = 3) {
  TokenFileWriter writer(path, {.vocabulary = vocabulary,
                                .end_token = end_token,
                                .tokenizer_sha256 = sha256_file(kTokenizer + "/tokenizer.json"),
                                .sources_sha256 = sha256("")});
  std::int32_t next = 0;
  for (const int size : sizes) {
    writer.start_document();
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < size; ++i) tokens.push_back(next++);
    writer.append(tokens);
  }
  writer.finish();
  return path;
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

TEST_CASE("a file of tokens gives back what was written, in two bytes or in four", "[tokens]") {
  const Scratch scratch;
  for (const std::int32_t vocabulary : {65536, 65537}) {
    const std::string path = write_tokens(scratch.path + "/a.tokens", {5, 7, 3}, vocabulary);
    const MappedTokens tokens(path);
    CHECK(tokens.size() == 15);
    CHECK(tokens.documents() == 3);
    CHECK(tokens.vocabulary() == vocabulary);
    CHECK(tokens.end_token() == 3);
    CHECK(tokens.tokenizer_sha256() == sha256_file(kTokenizer + "/tokenizer.json"));
    for (std::size_t i = 0; i < 15; ++i) CHECK(tokens.at(i) == static_cast<std::int32_t>(i));
    CHECK(tokens.document_start(1) == 5);
    CHECK(tokens.document_from(5) == 1);
    CHECK(tokens.document_from(6) == 2);
    CHECK(tokens.document_from(13) == 3);
    CHECK(fs::file_size(path) == 128 + (vocabulary == 65536 ? 32 : 64) + 24);  // 15 tokens, then 3 starts
  }
}

TEST_CASE("a file of tokens that is not finished leaves nothing behind", "[tokens]") {
  const Scratch scratch;
  {
    TokenFileWriter writer(
        scratch.path + "/a.tokens",
        {.vocabulary = 9, .end_token = -1, .tokenizer_sha256 = sha256(""), .sources_sha256 = sha256("")});
    writer.start_document();
    writer.append({1, 2});
    CHECK(fs::exists(scratch.path + "/a.tokens.partial"));
  }
  CHECK(fs::is_empty(scratch.path));
}

TEST_CASE("windows of a file of tokens are like those of a text, and know its documents", "[tokens]") {
  const Scratch scratch;
  Config config = small_config({write_tokens(scratch.path + "/a.tokens", {100, 10, 90}, 2051)});
  config.data.mask_documents = true;
  const auto corpus = open_corpus(config);  // 180 tokens for training
  for (std::int64_t step = 0; step < 30; ++step) {
    const Batch batch = corpus->train(step, 1);
    for (std::size_t row = 0; row + 1 < batch.ids.size(); ++row) {
      CHECK(batch.ids[row] < 180);
      const bool begins = batch.ids[row + 1] == 100 || batch.ids[row + 1] == 110 || row == 15;
      CHECK(batch.targets[row] == (begins ? kNoTarget : batch.ids[row] + 1));
      if (begins) CHECK(batch.positions[row + 1] == 0);
    }
  }
  CHECK(corpus->held_out_microbatches(0) == 1);
  const Batch held_out = corpus->held_out(0);
  CHECK(held_out.ids[0] == 180);
  CHECK(held_out.ids[19] == 199);
  CHECK(held_out.ids[20] == 3);  // padding with the end token
  CHECK(held_out.target_count() == 15 + 3);
  const auto told = corpus->provenance();
  REQUIRE(told.size() == 2);
  CHECK(told[1].sha256 == sha256_file(kTokenizer + "/tokenizer.json"));
}

TEST_CASE("documents become the tokenizer's tokens, with its end token behind each", "[tokens]") {
  const Scratch scratch;
  scratch.write("tokenizer.json", read_all(kTokenizer + "/tokenizer.json"));
  scratch.write("tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
  Config config =
      small_config({scratch.write("a.jsonl", "{\"text\": \"Hello world\"}\n{\"text\": \"<|endoftext|>\"}\n")});
  config.data.tokenizer = scratch.path;
  const Batch batch = open_evaluation_files(config, config.data.files, {})->held_out(0);
  const std::vector<std::int32_t> expected = {39, 459, 78, 1366, 2048, 27, 91, 413};
  CHECK(std::vector<std::int32_t>(batch.ids.begin(), batch.ids.begin() + 8) == expected);
  CHECK(batch.target_count() ==
        4 + static_cast<std::int64_t>(open_tokenizer(config)->encode("<|endoftext|>").size()) + 1);
}

TEST_CASE("tokens that don't fit the run are refused with what to do", "[tokens]") {
  const Scratch scratch;
  const std::string good = write_tokens(scratch.path + "/good.tokens", {100, 100}, 2051), bytes = read_all(good);
  const std::vector<std::pair<std::string, std::function<void(Config&)>>> cases = {
      {"made by another tokenizer", [](Config& c) { c.data.tokenizer = "bytes"; }},
      {"good.tokens ends its documents with token 3, this run with 4", [](Config& c) { c.model.eos_token_id = 4; }},
      {"model.vocab_size is 2050, must be 2051 or more", [](Config& c) { c.model.vocab_size = 2050; }},
      {"cut.tokens has", [&](Config& c) { c.data.files = {scratch.write("cut.tokens", bytes.substr(0, 300))}; }},
      {"no file of tokens", [&](Config& c) { c.data.files = {scratch.write("text.tokens", std::string(200, 'x'))}; }},
      {"has version 2",
       [&](Config& c) {
         std::string later = bytes;
         later[8] = 2;
         c.data.files = {scratch.write("later.tokens", later)};
       }},
      {"troupe tokenize --tokenizer",
       [&](Config& c) { c.data.files = {scratch.write("a.txt", std::string(200, 'x'))}; }},
      {"too few for a sequence of 16",
       [&](Config& c) { c.data.files = {write_tokens(scratch.path + "/s.tokens", {9}, 2051)}; }}};
  CHECK(problem_of([&] { open_corpus(small_config({good})); }).empty());
  const std::string endless = write_tokens(scratch.path + "/endless.tokens", {100, 100}, 2051, -1);
  CHECK(problem_of([&] { open_corpus(small_config({endless})); }).empty());
  for (const auto& [says, spoil] : cases) {
    Config config = small_config({good});
    spoil(config);
    CHECK_THAT(problem_of([&] { open_corpus(config); }), Catch::Contains(says));
  }
}
