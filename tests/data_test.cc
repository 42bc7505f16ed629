// What a run learns from: batches as pure functions, documents kept apart, held-out data never trained on.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "actors/data/corpus.h"
#include "actors/data/packing.h"
#include "kernels/base/error.h"

using namespace troupe;

namespace {

struct Scratch {
  std::string path = (std::filesystem::temp_directory_path() / "troupe-data-XXXXXX").string();
  Scratch() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path + "/" + name, std::ios::binary) << bytes;
    return path + "/" + name;
  }
};

// Text in which every position can be told from the bytes around it: "000001 000002 ...".
std::string counted_text(int words) {
  std::string text;
  for (int i = 0; i < words; ++i) text += fmt::format("{:06} ", i);
  return text;
}

std::string jsonl(const std::vector<std::string>& documents) {
  std::string lines;
  for (const std::string& text : documents) lines += nlohmann::json{{"text", text}}.dump() + "\n";
  return lines;
}

Config small_config(const std::string& kind, const std::vector<std::string>& files) {
  Config config;
  config.train.sequence_length = 32;
  config.train.batch_sequences = 8;
  config.train.microbatches = 4;
  config.data.kind = kind;
  config.data.files = files;
  return config;
}

bool equal(const Batch& a, const Batch& b) {
  return a.ids == b.ids && a.targets == b.targets && a.mtp_targets == b.mtp_targets && a.positions == b.positions &&
         a.spans == b.spans && a.sequences == b.sequences && a.length == b.length;
}

std::string text_of(const Batch& batch, int sequence) {
  const auto length = static_cast<std::size_t>(batch.length), first = static_cast<std::size_t>(sequence) * length;
  std::string text;
  for (std::size_t row = first; row < first + length; ++row) text += static_cast<char>(batch.ids[row]);
  return text;
}

std::string problem_of_opening(const Config& config) {
  try {
    open_corpus(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Spans cover all rows once; positions restart in each; no target reaches over a span's end, and each target is the
// next token (or none).
void check_isolation(const Batch& batch) {
  std::int32_t row = 0;
  for (std::size_t s = 0; s < batch.spans.size(); s += 4) {
    REQUIRE(batch.spans[s] == row);
    REQUIRE(batch.spans[s + 2] == row);
    REQUIRE(batch.spans[s + 3] == batch.spans[s + 1]);
    const std::int32_t end = row + batch.spans[s + 1];
    for (std::int32_t position = 0; row < end; ++row, ++position) {
      const auto at = static_cast<std::size_t>(row);
      REQUIRE(batch.positions[at] == position);
      if (row + 1 >= end) REQUIRE(batch.targets[at] == kNoTarget);
      if (row + 2 >= end) REQUIRE(batch.mtp_targets[at] == kNoTarget);
      if (batch.targets[at] != kNoTarget) REQUIRE(batch.targets[at] == batch.ids[at + 1]);
      if (batch.mtp_targets[at] != kNoTarget) REQUIRE(batch.mtp_targets[at] == batch.ids[at + 2]);
    }
  }
  REQUIRE(row == batch.sequences * batch.length);
}

}  // namespace

TEST_CASE("targets are the next label and mtp targets the one after it, within the sequence", "[data]") {
  const Batch batch = make_batch(2, 4, {1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, kNoTarget, 4, 5, 6, 7, 8}, {}, false);
  CHECK(batch.targets == std::vector<std::int32_t>{2, kNoTarget, 4, kNoTarget, 6, 7, 8, kNoTarget});
  CHECK(batch.mtp_targets == std::vector<std::int32_t>{kNoTarget, 4, kNoTarget, kNoTarget, 7, 8, kNoTarget, kNoTarget});
  CHECK(batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 0, 1, 2, 3});
  CHECK(batch.spans == std::vector<std::int32_t>{0, 4, 0, 4, 4, 4, 4, 4});
  CHECK(batch.target_count() == 5);
  CHECK(batch.mtp_target_count() == 3);
}

TEST_CASE("an isolated document keeps targets, positions and attention to itself", "[data]") {
  const Batch batch = make_batch(1, 6, {1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}, {{0, 2, 5}}, true);
  CHECK(batch.targets == std::vector<std::int32_t>{2, kNoTarget, 4, 5, kNoTarget, kNoTarget});
  CHECK(batch.mtp_targets == std::vector<std::int32_t>{kNoTarget, kNoTarget, 5, kNoTarget, kNoTarget, kNoTarget});
  CHECK(batch.positions == std::vector<std::int32_t>{0, 1, 0, 1, 2, 0});
  CHECK(batch.spans == std::vector<std::int32_t>{0, 2, 0, 2, 2, 3, 2, 3, 5, 1, 5, 1});
  check_isolation(batch);
}

TEST_CASE("a sequence ends where the next item does not fit", "[data]") {
  CHECK(pack_in_order({3, 4, 5, 1, 8, 2}, 8) == std::vector<std::int64_t>{0, 2, 4, 5, 6});
  CHECK(pack_in_order({8}, 8) == std::vector<std::int64_t>{0, 1});
  CHECK(pack_in_order({}, 8) == std::vector<std::int64_t>{0});
}

TEST_CASE("a batch depends on step and microbatch only, and microbatches only cut the step", "[data]") {
  const Scratch scratch;
  const auto text = scratch.write("a.txt", counted_text(500));
  std::vector<std::string> documents;
  for (int i = 0; i < 40; ++i)
    documents.push_back(std::string(static_cast<std::size_t>(1 + i % 45), static_cast<char>('a' + i % 26)));
  const auto lines = scratch.write("b.jsonl", jsonl(documents));
  for (const std::string kind : {"text", "jsonl", "mixed", "arithmetic", "random"}) {
    INFO(kind);
    Config config = small_config(kind == "mixed" ? "text" : kind, {text, lines});
    if (kind == "text") config.data.files = {text};
    if (kind == "jsonl") config.data.files = {lines};
    if (kind == "arithmetic") config.train.sequence_length = 64;
    const auto one = open_corpus(config), other = open_corpus(config);
    config.train.microbatches = 2;
    const auto coarser = open_corpus(config);
    const Batch late = other->train(7, 3);
    CHECK(equal(one->train(7, 3), late));
    CHECK(equal(one->train(7, 3), late));
    CHECK_FALSE(one->train(7, 2).ids == late.ids);
    CHECK_FALSE(one->train(8, 3).ids == late.ids);
    std::vector<std::int32_t> joined = one->train(7, 0).ids;
    const auto second = one->train(7, 1).ids;
    joined.insert(joined.end(), second.begin(), second.end());
    CHECK(joined == coarser->train(7, 0).ids);
    config.train.seed = 2;
    config.train.microbatches = 4;
    CHECK_FALSE(open_corpus(config)->train(7, 3).ids == late.ids);
  }
}

TEST_CASE("text windows come from the training part, held-out ones cover the rest once and in order", "[data]") {
  const Scratch scratch;
  const std::string text = counted_text(100);  // 700 bytes: 630 for training, 70 held out
  const auto corpus = open_corpus(small_config("text", {scratch.write("a.txt", text)}));
  std::set<std::size_t> starts;
  for (std::int64_t step = 0; step < 100; ++step) {
    const Batch batch = corpus->train(step, 1);
    REQUIRE(batch.sequences == 2);
    for (int sequence = 0; sequence < 2; ++sequence) {
      const std::size_t start = text.find(text_of(batch, sequence));
      REQUIRE(start != std::string::npos);
      REQUIRE(start + 32 <= 630);
      starts.insert(start);
    }
  }
  CHECK(starts.size() > 150);  // 200 draws of 599 places: 170 different ones are expected
  REQUIRE(corpus->held_out_microbatches(0) == 2);
  const Batch held_out = corpus->held_out(0);
  CHECK(text_of(held_out, 0) == text.substr(630, 32));
  CHECK(text_of(held_out, 1) == text.substr(662, 32));
  CHECK(held_out.target_count() == 2 * 31);
  const Batch tail = corpus->held_out(1);  // 6 bytes and padding, which is not learned
  CHECK(text_of(tail, 0) == text.substr(694) + std::string(26, '\x01'));
  CHECK(tail.target_count() == 5);
  const StepCounts counts = corpus->counts(3, 4);
  CHECK(counts.target_tokens == 8 * 31);
  CHECK(counts.mtp_target_tokens == 8 * 30);
  CHECK(counts.tokens == 8 * 32);
}

TEST_CASE("a limit of held-out tokens is kept to whole microbatches, and the last one may be short", "[data]") {
  const Scratch scratch;
  Config config = small_config(
      "text", {scratch.write("a.txt", counted_text(1000))});  // 700 held out: 22 windows, 28 bytes in the last
  const auto corpus = open_corpus(config);
  CHECK(corpus->held_out_microbatches(0) == 11);
  CHECK(corpus->held_out(10).sequences == 2);
  CHECK(corpus->held_out(10).target_count() == 31 + 27);
  CHECK(corpus->held_out_microbatches(200) == 3);  // 64 rows each
  CHECK(corpus->held_out_microbatches(1) == 1);
  CHECK(corpus->held_out_microbatches(1 << 30) == 11);
}

TEST_CASE("an epoch of documents holds each training document once, whole, and no held-out one", "[data]") {
  const Scratch scratch;
  std::vector<std::string> documents;
  for (int i = 0; i < 50; ++i)
    documents.push_back(fmt::format("<{:02}{}>", i, std::string(static_cast<std::size_t>(i % 20), 'x')));
  Config config = small_config("jsonl", {scratch.write("a.jsonl", jsonl(documents))});
  config.data.mask_documents = true;
  const auto corpus = open_corpus(config);
  std::map<std::string, int> seen;  // 45 documents are for training
  std::int64_t sequences = 0;
  for (std::int64_t step = 0; step < 4; ++step) {
    for (std::int32_t microbatch = 0; microbatch < 4; ++microbatch) {
      const Batch batch = corpus->train(step, microbatch);
      check_isolation(batch);
      for (std::size_t s = 0; s < batch.spans.size(); s += 4) {
        std::string document;
        for (std::int32_t row = batch.spans[s]; row < batch.spans[s] + batch.spans[s + 1]; ++row) {
          document += static_cast<char>(batch.ids[static_cast<std::size_t>(row)]);
        }
        if (document.front() != '<') continue;  // padding
        CHECK(document.substr(document.size() - 2) == ">\x01");
        ++seen[document.substr(0, document.size() - 1)];
      }
      sequences += batch.sequences;
    }
  }
  CHECK(sequences == 32);
  CHECK(seen.size() == 45);
  for (int i = 0; i < 45; ++i) CHECK(seen.contains(documents[static_cast<std::size_t>(i)]));
  const auto [fewest, most] =
      std::minmax_element(seen.begin(), seen.end(), [](auto& a, auto& b) { return a.second < b.second; });
  CHECK(most->second - fewest->second <= 1);
  std::string held_out;
  for (std::int32_t m = 0; m < corpus->held_out_microbatches(0); ++m) {
    const Batch batch = corpus->held_out(m);
    for (int sequence = 0; sequence < batch.sequences; ++sequence) held_out += text_of(batch, sequence);
  }
  for (int i = 45; i < 50; ++i) CHECK(held_out.find(documents[static_cast<std::size_t>(i)]) != std::string::npos);
  CHECK(held_out.find("<44") == std::string::npos);
}

TEST_CASE("a document longer than a sequence is cut and nothing of it is lost", "[data]") {
  const Scratch scratch;
  const std::string text = counted_text(12);  // 84 bytes and the end token: 32 + 32 + 21
  Config config = small_config("jsonl", {scratch.write("a.jsonl", jsonl({text}))});
  const auto corpus = open_evaluation_files(config, config.data.files, {});
  REQUIRE(corpus->held_out_microbatches(0) == 2);
  const std::string joined =
      text_of(corpus->held_out(0), 0) + text_of(corpus->held_out(0), 1) + text_of(corpus->held_out(1), 0);
  CHECK(joined == text + std::string(12, '\x01'));
  CHECK(corpus->held_out(1).target_count() == 20);  // 20 bytes and the end token; the padding is not learned
}

TEST_CASE("without isolation targets cross documents but never reach padding", "[data]") {
  const Scratch scratch;
  Config config = small_config("jsonl", {scratch.write("a.jsonl", jsonl({"abcdefgh", "ijklmnop"}))});
  const Batch batch = open_evaluation_files(config, config.data.files, {})->held_out(0);
  CHECK(batch.spans == std::vector<std::int32_t>{0, 32, 0, 32});
  CHECK(batch.targets[8] == 'i');  // after the end token of the first document
  CHECK(batch.mtp_targets[7] == 'i');
  CHECK(batch.target_count() == 17);
}

TEST_CASE("escapes in a JSONL document become the bytes they stand for", "[data]") {
  const Scratch scratch;
  Config config = small_config("jsonl", {scratch.write("a.jsonl", "{\"text\": \"a\\n\\u00e9\", \"other\": 1}\n\n")});
  const Batch batch = open_evaluation_files(config, config.data.files, {})->held_out(0);
  CHECK(text_of(batch, 0).substr(0, 5) == "a\n\xc3\xa9\x01");
}

TEST_CASE("files are mixed by their weights exactly, and by size without any", "[data]") {
  const Scratch scratch;
  const std::vector<std::string> files = {
      scratch.write("a.txt", std::string(1000, 'a')), scratch.write("b.txt", std::string(3000, 'b')),
      scratch.write("c.jsonl", jsonl(std::vector<std::string>(40, std::string(99, 'c'))))};
  Config config = small_config("text", files);
  const auto shares = [&] {
    std::map<char, double> share;
    const auto corpus = open_corpus(config);
    for (std::int64_t step = 0; step < 512; ++step) {  // 4,096 sequences: one turn of the mixture
      for (std::int32_t m = 0; m < 4; ++m) {
        const Batch batch = corpus->train(step, m);
        for (int sequence = 0; sequence < 2; ++sequence) share[text_of(batch, sequence)[0]] += 1.0 / 4096;
      }
    }
    return share;
  };
  config.data.weights = {0.5, 0.25, 0.25};
  auto share = shares();
  CHECK(share['a'] == 0.5);
  CHECK(share['b'] == 0.25);
  CHECK(share['a'] + share['b'] + share['c'] + share['\x01'] == Approx(1));
  config.data.weights = {};
  share = shares();
  CHECK(share['b'] == Approx(3 * share['a']).epsilon(0.01));
  config.data.weights = {0, 1, 0};
  CHECK(shares()['b'] == 1);
}

TEST_CASE("only solutions are learned, and each problem is a document", "[arithmetic]") {
  Config config = small_config("arithmetic", {});
  config.train.sequence_length = 128;
  config.data.mask_documents = true;
  const auto corpus = open_corpus(config);
  for (const Batch& batch : {corpus->train(3, 1), corpus->held_out(2)}) {
    check_isolation(batch);
    CHECK(batch.spans.size() >= 4 * 3 * 2);  // three problems and more in each of two sequences
    bool is_solution = false;
    for (std::size_t row = 0; row < batch.ids.size(); ++row) {
      if (batch.positions[row] == 0) is_solution = false;
      is_solution = is_solution || batch.ids[row] == '=';
      const bool is_last = batch.ids[row] == '\n';
      REQUIRE((batch.targets[row] != kNoTarget) == (is_solution && !is_last));
    }
  }
}

TEST_CASE("data that can't be used is refused with its file and the reason", "[data]") {
  const Scratch scratch;
  const auto text = scratch.write("good.txt", counted_text(200));
  struct Case {
    std::string says;
    std::function<void(Config&)> spoil;
  };
  const std::vector<Case> cases = {
      {"missing.txt", [&](Config& c) { c.data.files = {scratch.path + "/missing.txt"}; }},
      {"not a file", [&](Config& c) { c.data.files = {scratch.path}; }},
      {"empty.txt has 0 bytes", [&](Config& c) { c.data.files = {scratch.write("empty.txt", "")}; }},
      {"short.txt has 30 bytes", [&](Config& c) { c.data.files = {scratch.write("short.txt", std::string(30, 'x'))}; }},
      {"held out: too few",
       [&](Config& c) {
         c.data.files = {scratch.write("less.txt", std::string(50, 'x'))};
         c.data.held_out = 0.02;
       }},
      {"bad.jsonl:2: not json",
       [&](Config& c) { c.data.files = {scratch.write("bad.jsonl", "{\"text\":\"a\"}\n{\"text\":\n")}; }},
      {"key.jsonl:1: not an object",
       [&](Config& c) { c.data.files = {scratch.write("key.jsonl", "{\"body\":\"a\"}\n")}; }},
      {"holds no documents", [&](Config& c) { c.data.files = {scratch.write("none.jsonl", "\n\n")}; }},
      {"none of them", [&](Config& c) { c.data.files = {scratch.write("one.jsonl", "{\"text\":\"a\"}\n")}; }},
      {"model.vocab_size is 255", [](Config& c) { c.model.vocab_size = 255; }},
      {"model.vocab_size is 62", [](Config& c) { c.data.kind = "arithmetic", c.model.vocab_size = 62; }},
      {"data.files is empty", [](Config& c) { c.data.files.clear(); }},
      {"data.weights has 2 numbers for 1",
       [](Config& c) {
         c.data.weights = {1, 1};
       }},
      {"all 0", [](Config& c) { c.data.weights = {0}; }},
      {"data.held_out", [](Config& c) { c.data.held_out = 1; }},
      {"data.kind", [](Config& c) { c.data.kind = "video"; }},
      {"data.arithmetic_digits", [](Config& c) { c.data.kind = "arithmetic", c.data.arithmetic_digits = 10; }},
      {"data.arithmetic_operations", [](Config& c) { c.data.kind = "arithmetic", c.data.arithmetic_operations = "/"; }},
      {"train.sequence_length is 32", [](Config& c) { c.data.kind = "arithmetic"; }}};
  CHECK(problem_of_opening(small_config("text", {text})).empty());
  for (const Case& one : cases) {
    Config config = small_config("text", {text});
    one.spoil(config);
    CHECK_THAT(problem_of_opening(config), Catch::Contains(one.says));
  }
}

TEST_CASE("random tokens are of the whole vocabulary, evenly, and those held out are others", "[data]") {
  Config config = small_config("random", {});
  config.model.vocab_size = 1000;
  config.train.sequence_length = 256;
  const auto corpus = open_corpus(config);
  std::vector<int> of_tenth(10);
  std::set<std::vector<std::int32_t>> all;
  for (std::int64_t step = 0; step < 10; ++step) {
    const Batch batch = corpus->train(step, 0);
    check_isolation(batch);
    CHECK(batch.target_count() == batch.sequences * 255);
    CHECK(all.insert(batch.ids).second);
    for (const std::int32_t id : batch.ids) ++of_tenth.at(static_cast<std::size_t>(id / 100));
  }
  for (const int count : of_tenth) CHECK(std::abs(count - 512) < 110);  // five standard deviations
  REQUIRE(corpus->held_out_microbatches(0) == 32);
  for (const std::int32_t microbatch : {0, 31}) CHECK(all.insert(corpus->held_out(microbatch).ids).second);
  CHECK(corpus->provenance().at(0).source == "random tokens below 1000, seed 1");
}

TEST_CASE("provenance tells each file's size, licence and digest", "[data]") {
  const Scratch scratch;
  Config config = small_config("text", {scratch.write("a.txt", counted_text(200))});
  config.data.licence = "public domain";
  const auto told = open_corpus(config)->provenance();
  REQUIRE(told.size() == 1);
  CHECK(told[0].source == config.data.files[0]);
  CHECK(told[0].bytes == 1400);
  CHECK(told[0].licence == "public domain");
  CHECK(told[0].sha256 == sha256(counted_text(200)));
}
