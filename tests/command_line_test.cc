// The commands as a person meets them: exit codes, sentences, files; and what a run makes of Ctrl-C and of processes
// that are killed or fall silent.
#include <openssl/sha.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

const std::string kTiny = TROUPE_SOURCE_DIR "/configs/tiny.toml";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Ended command(const Arguments& arguments) { return troupe::test::troupe(arguments); }

Ended expect_success(const Arguments& arguments) {
  Ended ended = command(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

// One sentence on standard error that says all of `parts`.
void expect_refused(const Arguments& arguments, const std::vector<std::string>& parts) {
  const Ended ended = command(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(ended.out == "");
  CHECK(ended.err.starts_with("troupe: "));
  CHECK(std::count(ended.err.begin(), ended.err.end(), '\n') == 1);
  CHECK(!ended.err.ends_with(".\n"));
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(ended.err, part));
  }
}

// Every file below a folder, with its bytes.
std::map<std::string, std::string> files_in(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[entry.path().string()] = read_file(entry.path().string());
  return files;
}

std::string digest_of(const std::string& model) {
  const std::string text = expect_success({"digest", model}).out;
  return text.substr(0, text.find('\n'));
}

// The digest that an undisturbed run of tiny.toml with these changes ends with.
std::string undisturbed(const Arguments& sets) {
  const Folder folder;
  expect_success(tiny_run(folder / "run", sets));
  return digest_of(folder / "run");
}

json last_of(const std::string& run, const std::string& kind) {
  const auto all = metrics_of(run, kind);
  REQUIRE(!all.empty());
  return all.back();
}

// Does what a person does who is told "...; continue with: COMMAND": pastes it into a shell.
Ended follow_advice(const std::string& text) {
  const std::string mark = "continue with: ";
  const std::size_t begin = text.find(mark);
  INFO(text);
  REQUIRE(begin != std::string::npos);
  const std::string pasted = text.substr(begin + mark.size(), text.find('\n', begin) - begin - mark.size());
  Ended ended = run({"/bin/sh", "-c", pasted});
  INFO(pasted << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

bool steps_done(const std::string& run, std::size_t count) { return metrics_of(run, "step").size() >= count; }

const Arguments kLong{"train.steps=80", "checkpoint.every_steps=2"};

}  // namespace

// ---- Arguments and errors -------------------------------------------------------------------------------------------

TEST_CASE("wrong arguments exit with 2 and name the argument", "[command]") {
  for (const auto& [arguments, part] : std::vector<std::pair<Arguments, std::string>>{
           {{}, "subcommand"},
           {{"fly"}, "fly is not a command"},
           {{"trian"}, "did you mean train"},
           {{"train"}, "CONFIG"},
           {{"train", kTiny, "--bogus"}, "--bogus"},
           {{"train", kTiny, "--set"}, "--set"},
           {{"train", kTiny, "--nodes", "two"}, "--nodes"},
           {{"check", "somewhere"}, "--out"},
           {{"generate", "run", "--prompt", "a", "--tokens", "0"}, "--tokens"},
           {{"digest", "a", "b"}, "b"}}) {
    const Ended ended = command(arguments);
    INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
    CHECK(ended.code == 2);
    CHECK(has(ended.err, part));
  }
}

TEST_CASE("help and version exit with 0", "[command]") {
  for (const std::string part :
       {"train", "plan", "generate", "eval", "check", "export", "config", "digest", "doctor"}) {
    INFO(part);
    CHECK(has(expect_success({"--help"}).out, part));
    CHECK(has(expect_success({part, "--help"}).out, part));
  }
  CHECK(expect_success({"--version"}).out.starts_with("troupe "));
}

TEST_CASE("what can't be done is one sentence and exits with 1", "[command]") {
  const Folder folder;
  const std::string none = folder / "none", out = folder / "out";
  expect_refused({"train", none + ".toml", "--out", out}, {none + ".toml", "no such file"});
  expect_refused({"plan", none + ".toml"}, {none + ".toml", "no such file"});
  expect_refused({"digest", none}, {none, "does not exist"});
  expect_refused({"eval", none}, {none, "does not exist"});
  expect_refused({"generate", none, "--prompt", "a"}, {none, "does not exist"});
  expect_refused({"export", none, out}, {none, "does not exist"});
  expect_refused({"check", none, "--out", out}, {none, "fixture"});
  expect_refused(with_sets({"train", kTiny, "--out", out}, {"train.steps=0"}), {"train.steps is 0, must be 1.."});
  expect_refused(with_sets({"train", kTiny, "--out", out}, {"train.stpes=3"}), {"did you mean train.steps"});
  expect_refused({"train", kTiny, "--out", out, "--nodes", "9"}, {"layout.nodes is 9", "at most 2"});
  expect_refused(with_sets({"train", kTiny, "--out", out}, {"train.start_from=" + none}), {none, "does not exist"});
  CHECK(!fs::exists(out + "/config.toml"));
}

TEST_CASE("weights of another model are refused by the tensor that doesn't fit", "[command]") {
  const Folder folder;
  const std::string fixtures = TROUPE_SOURCE_DIR "/tests/fixtures/";
  const Arguments other{"train.start_from=" + fixtures + "o1_moe_basic"};
  for (const Arguments& layout : {Arguments{}, Arguments{"layout.nodes=2"}}) {
    const std::string run = folder / std::to_string(layout.size());
    Arguments sets = other;
    sets.insert(sets.end(), layout.begin(), layout.end());
    const Ended ended = command(tiny_run(run, sets));
    INFO(ended.out << ended.err);
    CHECK(ended.code == 1);
    CHECK(has(ended.err, "tensor model.embed_tokens.weight has shape [96, 32], the configuration says [128, 32]"));
  }
  expect_refused({"check", fixtures + "o2_v3_groups", "--out", folder / "x", "--weights",
                  fixtures + "o1_moe_basic/model.safetensors"},
                 {"model.safetensors: tensor model.", " has shape [", "], the configuration says ["});
}

TEST_CASE("a check that fails leaves nothing in the temporary folder", "[command]") {
  const Folder folder;
  const std::string fixtures = TROUPE_SOURCE_DIR "/tests/fixtures/o1_moe_basic";
  Process process(troupe_command({"check", fixtures, "--out", folder / "x", "--weights", folder / "none"}));
  CHECK(process.wait().code == 1);
  CHECK(!fs::exists(fs::temp_directory_path() / fmt::format("troupe-check-{}", process.pid())));
}

TEST_CASE("a fixture is checked in one process, and more nodes are refused in a sentence", "[command]") {
  const Folder folder;
  expect_refused(
      with_sets({"check", TROUPE_SOURCE_DIR "/tests/fixtures/o1_moe_basic", "--out", folder / "x"}, {"layout.nodes=2"}),
      {"layout.nodes"});
}

TEST_CASE("plan and config show what a run would be", "[command]") {
  CHECK(has(expect_success({"plan", kTiny}).out, "node 0: peak"));
  const std::string phases = expect_success({"plan", TROUPE_SOURCE_DIR "/configs/r1_tiny.toml"}).out;
  for (const std::string name : {"cold_start: ", "reinforcement: ", "student: ", "exam: "}) CHECK(has(phases, name));
  const Folder folder;
  write_file(folder / "whole.toml", expect_success(with_sets({"config", kTiny}, {"train.steps=77"})).out);
  CHECK(has(read_file(folder / "whole.toml"), "steps = 77"));
  CHECK(expect_success({"config", folder / "whole.toml"}).out == read_file(folder / "whole.toml"));
  CHECK(has(expect_success({"config", "--keys"}).out, "train.seed"));
}

// ---- A run's folder -------------------------------------------------------------------------------------------------

TEST_CASE("a run is never written over: without --resume it stays as it is", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  expect_success(tiny_run(run, {}));
  const auto before = files_in(run);
  expect_refused(tiny_run(run, {}), {run, "a run is here already", "--resume", "--out"});
  CHECK(files_in(run) == before);
  expect_refused(tiny_resume(run, {"train.seed=2"}), {run, "train.seed: 1 -> 2"});
  CHECK(files_in(run) == before);
}

TEST_CASE("only one process at a time runs in a folder", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  const Arguments sets{"train.steps=100000"};
  Process first(troupe_command(tiny_run(run, sets)));
  REQUIRE(first.follow([&] { return steps_done(run, 1); }));
  expect_refused(tiny_resume(run, sets), {run, "another process is running in this folder"});
  first.signal_group(SIGINT);
  CHECK(first.wait().code == 130);
}

TEST_CASE("every line of metrics.jsonl is JSON, and a step tells all that was promised", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  expect_success(tiny_run(run, {}));
  std::istringstream lines(read_file(run + "/metrics.jsonl"));
  std::map<std::string, int> kinds;
  for (std::string line; std::getline(lines, line);) ++kinds[json::parse(line).at("kind").get<std::string>()];
  CHECK(kinds["step"] == 6);
  CHECK(kinds["evaluation"] == 1);
  CHECK(kinds["checkpoint"] == 1);
  CHECK(kinds["finished"] == 1);
  double cost = 0;
  int number = 0;
  for (const json& step : metrics_of(run, "step")) {
    INFO(step.dump());
    CHECK(step.at("step") == number++);
    for (const std::string key : {"loss", "gradient_norm", "learning_rate", "tokens_per_second", "mfu", "memory_mib"})
      CHECK(step.at(key).get<double>() > 0);
    CHECK(step.at("mfu").get<double>() < 1);
    const double cosine = 0.1 + 0.9 * (1 + std::cos(M_PI * (number - 1) / 6)) / 2;
    CHECK(step.at("learning_rate").get<double>() == Approx(3e-3 * std::min(cosine, number / 5.0)));
    REQUIRE(step.at("load_max_over_mean").size() == 2);  // two layers with four experts, two of them chosen
    REQUIRE(step.at("router_entropy").size() == 2);
    for (const double load : step.at("load_max_over_mean")) CHECK((load >= 1 && load <= 2));
    for (const double entropy : step.at("router_entropy"))
      CHECK((entropy >= std::log(2) - 1e-9 && entropy <= std::log(4) + 1e-9));
    CHECK(step.at("cost_dollars").get<double>() > cost);
    cost = step.at("cost_dollars");
  }
}

// ---- Models ---------------------------------------------------------------------------------------------------------

namespace {

struct Safetensors {
  json header;
  std::string data;
};

// Read here anew: eight bytes of length, a JSON header, the data.
Safetensors parse(const std::string& file) {
  const std::string bytes = read_file(file);
  std::uint64_t length = 0;
  REQUIRE(bytes.size() > 8);
  std::memcpy(&length, bytes.data(), 8);
  Safetensors parsed{json::parse(bytes.substr(8, length)), bytes.substr(8 + length)};
  parsed.header.erase("__metadata__");
  return parsed;
}

std::string bytes_of(const Safetensors& file, const json& entry) {
  const std::size_t begin = entry.at("data_offsets")[0], end = entry.at("data_offsets")[1];
  return file.data.substr(begin, end - begin);
}

// A bfloat16 is the upper half of a float32.
std::string widened(const std::string& halves) {
  std::string floats;
  for (std::size_t i = 0; i < halves.size(); i += 2) floats += std::string(2, '\0') + halves.substr(i, 2);
  return floats;
}

// The nearest bfloat16, ties to even, as float32.
std::string rounded(const std::string& floats) {
  std::string out;
  for (std::size_t i = 0; i < floats.size(); i += 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, floats.data() + i, 4);
    word = (word + 0x7fff + ((word >> 16) & 1)) & 0xffff0000;
    out.append(reinterpret_cast<const char*>(&word), 4);
  }
  return out;
}

// SHA-256 over the float32 values of every tensor, names sorted bytewise (json objects are).
std::string independent_digest(const std::string& file) {
  const Safetensors parsed = parse(file);
  std::string all;
  for (const auto& [name, entry] : parsed.header.items())
    all += entry.at("dtype") == "BF16" ? widened(bytes_of(parsed, entry)) : bytes_of(parsed, entry);
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(all.data()), all.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

// The loss that `eval` prints; an exported folder brings no data of its own.
double loss_of(const std::string& model, bool exported) {
  const Arguments data{"data.kind=arithmetic", "data.arithmetic_digits=1", "train.sequence_length=32"};
  const Ended ended = expect_success(with_sets({"eval", model}, exported ? data : Arguments{}));
  CHECK(std::count(ended.out.begin(), ended.out.end(), '\n') == 1);
  return json::parse(ended.out).at("loss");
}

}  // namespace

TEST_CASE("the digest is the SHA-256 of a model's float32 values", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  expect_success(tiny_run(run, {}));
  const std::string model = checkpoints_of(run).back();
  CHECK(digest_of(run) == independent_digest(model + "/model.safetensors"));
  CHECK(digest_of(model) == digest_of(run));
}

TEST_CASE("an exported model is the run's model: same digest, same loss, a place to start from", "[command]") {
  const Folder folder;
  const std::string run = folder / "run", exported = folder / "exported";
  expect_success(tiny_run(run, {}));
  expect_success({"export", run, exported});
  CHECK(digest_of(exported) == digest_of(run));
  CHECK(json::parse(read_file(exported + "/config.json")).at("torch_dtype") == "float32");
  const double loss = loss_of(run, false);
  CHECK(loss == last_of(run, "evaluation").at("loss").get<double>());
  CHECK(loss_of(exported, true) == loss);
  expect_success(tiny_run(folder / "from_run", {"train.start_from=" + run}));
  expect_success(tiny_run(folder / "from_exported", {"train.start_from=" + exported}));
  CHECK(digest_of(folder / "from_exported") == digest_of(folder / "from_run"));
  CHECK(metrics_of(folder / "from_run", "step")[0].at("loss").get<double>() <
        metrics_of(run, "step")[0].at("loss").get<double>());
  expect_refused({"export", run, exported}, {exported, "a model is here already"});
  expect_refused({"export", run, folder / "half", "--dtype", "float16"}, {"float16", "float32 or bfloat16"});
}

TEST_CASE("an export to bfloat16 is every value rounded once, and nearly the same model", "[command]") {
  const Folder folder;
  const std::string run = folder / "run", exported = folder / "exported";
  expect_success(tiny_run(run, {}));
  expect_success({"export", run, exported, "--dtype", "bfloat16"});
  const Safetensors whole = parse(checkpoints_of(run).back() + "/model.safetensors");
  const Safetensors half = parse(exported + "/model.safetensors");
  CHECK(half.header.size() == whole.header.size());
  int narrow = 0;
  for (const auto& [name, entry] : half.header.items()) {
    INFO(name);
    const std::string expected = bytes_of(whole, whole.header.at(name));
    if (entry.at("dtype") == "F32") {
      CHECK(bytes_of(half, entry) == expected);
      CHECK(has(name, "e_score_correction_bias"));
      continue;
    }
    ++narrow;
    CHECK(widened(bytes_of(half, entry)) == rounded(expected));
  }
  CHECK(narrow > 20);
  CHECK(digest_of(exported) == independent_digest(exported + "/model.safetensors"));
  CHECK(digest_of(exported) != digest_of(run));
  CHECK(loss_of(exported, true) == Approx(loss_of(run, false)).epsilon(0.01));
  expect_success(tiny_run(folder / "next", {"train.start_from=" + exported}));
}

TEST_CASE("of text that a run was trained on its held-out part is evaluated, of other text all, to the last byte",
          "[command]") {
  const Folder folder;
  const std::string run = folder / "run", words = folder / "words.txt", other = folder / "other.txt",
                    exported = folder / "exported";
  std::string text;
  while (text.size() < 9600) text += "what is written twice is learned twice. ";
  write_file(words, text);
  write_file(other, text + "once more");
  expect_success(tiny_run(run, {"data.kind=text", "data.files=" + words, "model.vocab_size=256"}));
  expect_success({"export", run, exported});
  const auto said = [&](const std::string& model, const std::string& file, const Arguments& sets) {
    return json::parse(expect_success(with_sets({"eval", model, "--files", file}, sets)).out);
  };
  const json whole = said(run, other, {}), again = said(exported, other, {"train.sequence_length=32"});
  CHECK(whole.at("tokens") == 9600 / 32 * 31 + 8);  // the first byte of a window has nothing to be told from
  CHECK(whole.at("loss").get<double>() < std::log(256));
  CHECK(again.at("loss") == whole.at("loss"));
  CHECK(said(run, words, {}).at("tokens") == 960 / 32 * 31);
  CHECK(said(run, words, {}).at("loss") == json::parse(expect_success({"eval", run}).out).at("loss"));
  expect_refused({"eval", exported}, {exported, "--files"});
  expect_refused({"eval", exported, "--files", folder / "none"}, {"none"});
  fs::rename(words, folder / "moved.txt");
  expect_refused({"eval", run}, {run, "--files"});
  expect_success({"generate", run, "--prompt", "what"});
}

TEST_CASE("profile tells where the time of decoding goes", "[command]") {
  const std::string out = expect_success({"profile", kTiny, "--decode", "3", "--context", "8", "--tokens", "4"}).out;
  for (const std::string part : {"3 sequences behind 8 tokens each", "tokens/s", "Attention", "rollout"})
    CHECK(has(out, part));
  expect_refused({"profile", kTiny, "--decode", "1", "--context", "100000"}, {"max_position_embeddings"});
}

TEST_CASE("generation is greedy at temperature 0 and a matter of the seed above", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  expect_success(tiny_run(run, {}));
  const auto written = [&](const Arguments& more) {
    Arguments arguments{"generate", run, "--prompt", "1+2=", "--tokens", "16"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::string out = expect_success(arguments).out;
    CHECK(out.starts_with("1+2="));
    return out;
  };
  CHECK(written({}) == written({"--seed", "7"}));
  CHECK(written({}) == written({"--temperature", "0"}));
  CHECK(written({}) == written({"--set", "layout.stages=2", "--set", "layout.expert_shards=2"}));
  const Arguments warm{"--temperature", "1", "--seed", "7"}, other{"--temperature", "1", "--seed", "8"};
  CHECK(written(warm) == written(warm));
  CHECK(written(warm) != written(other));
  CHECK(written(warm) != written({}));
  // A prompt's answer doesn't depend on the prompts beside it.
  const std::string both = expect_success({"generate", run, "--prompt", "1+2=", "--prompt", "9", "--tokens", "16"}).out;
  CHECK(both.starts_with(written({})));
  CHECK(has(both.substr(written({}).size()), "9"));
  // Nor on how many there are, nor on the threads that share them.
  Arguments many{"generate", run, "--tokens", "8", "--set", "device.threads=1"};
  for (int i = 10; i < 50; ++i) many.insert(many.end(), {"--prompt", std::to_string(i) + "+1="});
  const std::string alone = expect_success(many).out;
  many[5] = "device.threads=3";
  CHECK(expect_success(many).out == alone);
  CHECK(has(alone, expect_success({"generate", run, "--prompt", "37+1=", "--tokens", "8"}).out));
  expect_refused({"generate", run}, {"--prompt"});
  expect_refused({"generate", run, "--prompt", "a", "--temperature", "-1"}, {"--temperature is -1"});
  expect_refused({"generate", run, "--prompt", "a", "--top-p", "0"}, {"--top-p is 0"});
  expect_refused({"generate", run, "--prompt", "caf\xc3\xa9"}, {"vocabulary ends at 127"});
  expect_refused({"generate", run, "--prompt", std::string(200, '1')}, {"200 tokens", "at most 127"});
}

TEST_CASE("a command that is printed can be pasted, whatever the folder's name", "[command]") {
  const Folder folder;
  const std::string run = folder / "my first run";
  Process process(troupe_command(tiny_run(run, {"train.steps=80"})));
  REQUIRE(process.follow([&] { return steps_done(run, 3); }));
  process.signal_group(SIGINT);
  follow_advice(process.wait().err);
  CHECK(metrics_of(run, "step").size() == 80);
}

// ---- Interrupted, killed, silent ------------------------------------------------------------------------------------

TEST_CASE("Ctrl-C saves, exits with 130 and says how to go on, and that ends with the undisturbed bits", "[command]") {
  const Folder folder;
  const std::string expected = undisturbed(kLong);
  for (const int signal : {SIGINT, SIGTERM}) {
    for (const std::string nodes : {"1", "2"}) {
      INFO("signal " << signal << ", nodes " << nodes);
      const std::string run = folder / (std::to_string(signal) + "." + nodes);
      Arguments sets = kLong;
      sets.push_back("layout.nodes=" + nodes);
      sets.push_back("checkpoint.every_steps=0");
      Process process(troupe_command(tiny_run(run, sets)));
      REQUIRE(process.follow([&] { return steps_done(run, 5); }));
      process.signal_group(signal);
      const Ended ended = process.wait();
      INFO(ended.out << ended.err);
      CHECK(ended.code == 130);
      CHECK(has(ended.err, "interrupted"));
      CHECK(process.members().empty());
      const std::size_t steps = metrics_of(run, "step").size();
      CHECK(steps < 80);
      CHECK(checkpoints_of(run).back().ends_with(fmt::format("step-{:08}", steps)));
      const Ended resumed = follow_advice(ended.err);
      CHECK(has(resumed.out, fmt::format("starting at step {} ", steps)));
      CHECK(metrics_of(run, "step").size() == 80);
      CHECK(digest_of(run) == expected);
    }
  }
}

TEST_CASE("without restarts a killed node ends the run with its name and the way to go on, and nobody stays",
          "[command]") {
  const Folder folder;
  const std::string expected = undisturbed(kLong);
  std::vector<std::string> named;
  for (const bool first : {true, false}) {
    const std::string run = folder / (first ? "first" : "second");
    Arguments sets = kLong;
    sets.push_back("layout.nodes=2");
    sets.push_back("recovery.restarts_max=0");
    Process process(troupe_command(tiny_run(run, sets)));
    REQUIRE(process.follow([&] { return steps_done(run, 5); }));
    std::vector<pid_t> nodes = process.members();
    std::erase(nodes, process.pid());
    REQUIRE(nodes.size() == 2);
    ::kill(first ? std::min(nodes[0], nodes[1]) : std::max(nodes[0], nodes[1]), SIGKILL);
    const Ended ended = process.wait();
    INFO(ended.out << ended.err);
    CHECK(ended.code == 1);
    CHECK(has(ended.err, "killed by signal 9"));
    CHECK(process.members().empty());
    const std::size_t name = ended.err.find("troupe: node ");
    REQUIRE(name != std::string::npos);
    named.push_back(ended.err.substr(name, std::strlen("troupe: node 0")));
    follow_advice(ended.err);
    CHECK(digest_of(run) == expected);
  }
  CHECK(named[0] != named[1]);
}

TEST_CASE("a second Ctrl-C stops at once, and the run can still go on", "[command]") {
  const Folder folder;
  for (const std::string nodes : {"1", "2"}) {
    INFO("nodes " << nodes);
    const std::string run = folder / nodes;
    // Some seconds a step: the second signal comes before its end.
    Arguments sets{"train.batch_sequences=2048", "train.microbatches=512", "train.sequence_length=128",
                   "train.steps=2"};
    sets.push_back("layout.nodes=" + nodes);
    Process process(troupe_command(tiny_run(run, sets)));
    REQUIRE(process.follow([&] { return !metrics_of(run, "ready").empty(); }));
    process.signal_group(SIGINT);
    REQUIRE(process.follow([&] { return has(process.err(), "interrupted"); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(150));  // no hand is quicker
    process.signal_group(SIGINT);
    const Ended ended = process.wait();
    INFO(ended.out << ended.err);
    CHECK(ended.code == 1);
    CHECK(has(ended.err, "interrupted twice: stopped at once; continue with: "));
    CHECK(metrics_of(run, "step").empty());
    CHECK(process.members().empty());
  }
}

TEST_CASE("a node killed while the nodes start ends the run too", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(run, {"layout.nodes=2"})));
  REQUIRE(process.follow([&] { return process.members().size() == 3; }));
  std::vector<pid_t> nodes = process.members();
  std::erase(nodes, process.pid());
  ::kill(nodes[0], SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(has(ended.err, "killed by signal 9"));
  CHECK(process.members().empty());
  follow_advice(ended.err);
  CHECK(digest_of(run) == undisturbed({}));
}

TEST_CASE("a node that falls silent is missed, and without restarts its run ended", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  const Arguments sets{"train.steps=100000", "layout.nodes=2", "limits.heartbeat_ms=100", "limits.silence_ms=1000",
                       "recovery.restarts_max=0"};
  Process process(troupe_command(tiny_run(run, sets)), 20000);
  REQUIRE(process.follow([&] { return steps_done(run, 3); }));
  std::vector<pid_t> nodes = process.members();
  std::erase(nodes, process.pid());
  REQUIRE(nodes.size() == 2);
  ::kill(nodes[1], SIGSTOP);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(!ended.late);
  CHECK(ended.code == 1);
  CHECK(has(ended.err, "node "));
  CHECK(has(ended.err, "silent for 1000 ms"));
  CHECK(has(ended.err, "continue with: "));
  CHECK(process.members().empty());
}

TEST_CASE("nodes end with the launcher, however it was killed", "[command]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(run, {"train.steps=100000", "layout.nodes=2"})));
  REQUIRE(process.follow([&] { return steps_done(run, 2); }));
  REQUIRE(process.members().size() == 3);
  ::kill(process.pid(), SIGKILL);
  CHECK(process.wait().signal == SIGKILL);
  CHECK(process.all_gone(5000));
}
