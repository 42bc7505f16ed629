// What stands in a command's way, as a person meets it: files that are broken, folders that are taken, disks that are
// full, numbers that aren't numbers. The law: one sentence, and nothing half done is left.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/small_run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

const std::string kTiny = TROUPE_SOURCE_DIR "/configs/tiny.toml";
const std::string kModel = TROUPE_SOURCE_DIR "/tests/fixtures/o1_moe_basic";

// One sentence on standard error that says all of `parts`.
void expect_sentence(const Ended& ended, const std::vector<std::string>& parts) {
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(ended.err.starts_with("troupe: "));
  CHECK(std::count(ended.err.begin(), ended.err.end(), '\n') == 1);
  CHECK(!has(ended.err, "json.exception"));
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(ended.err, part));
  }
}

void expect_refused(const Arguments& arguments, const std::vector<std::string>& parts) {
  const Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump());
  CHECK(ended.out == "");
  expect_sentence(ended, parts);
}

// Exit code 2, by the option's name.
void expect_wrong(Arguments arguments, const std::string& option, const std::string& value) {
  arguments.insert(arguments.end(), {option, value});
  const Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  CHECK(ended.code == 2);
  CHECK(has(ended.err, option + ": "));
}

// The fixture's model in a folder of the test's own.
std::string copy_of_model(const std::string& folder) {
  fs::create_directories(folder);
  for (const std::string name : {"/config.json", "/model.safetensors"}) fs::copy_file(kModel + name, folder + name);
  return folder;
}

}  // namespace

// ---- export ---------------------------------------------------------------------------------------------------------

TEST_CASE("an export for which the disk has no room says so, and leaves no model", "[refused]") {
  const Folder folder;
  for (const std::string full : {"config.json", "model.safetensors"}) {
    const std::string out = folder / full;
    fs::create_directories(out);
    fs::create_symlink("/dev/full", out + "/" + full + ".partial");
    expect_refused({"export", kModel, out}, {full, "can't be written; is the disk full"});
    CHECK(fs::is_empty(out));
  }
}

TEST_CASE("no export goes into a run's folder", "[refused]") {
  const Folder folder;
  const std::string run = folder / "run";
  expect_success(tiny_run(run, {"train.steps=1"}));
  expect_refused({"export", run, run}, {run, "a run is here", "choose another folder"});
  expect_refused({"export", kModel, run}, {run, "a run is here"});
  CHECK(!fs::exists(run + "/model.safetensors"));
  expect_success({"export", run, run + "/exported"});
}

TEST_CASE("an export brings the run's tokenizer in place of another, and the model last", "[refused]") {
  const Folder folder;
  const std::string run = folder / "run", out = folder / "out";
  expect_success(tiny_run(run, {"train.steps=1"}));
  write_file(run + "/tokenizer.json", "the run's");
  fs::create_directories(out);
  write_file(out + "/tokenizer.json", "another");
  expect_success({"export", run, out});
  CHECK(read_file(out + "/tokenizer.json") == "the run's");
  CHECK(fs::exists(out + "/model.safetensors"));
}

TEST_CASE("an export of a model whose config.json is broken says which file, and leaves nothing", "[refused]") {
  const Folder folder;
  const std::string from = copy_of_model(folder / "from"), out = folder / "out";
  for (const std::string broken : {"", "{\"model_type\": ", "[1]"}) {
    write_file(from + "/config.json", broken);
    expect_refused({"export", from, out}, {from + "/config.json: it "});
    CHECK(!fs::exists(out));
  }
}

TEST_CASE("a model whose config.json is broken or says what can't be is refused by the file's name", "[refused]") {
  const Folder folder;
  const std::string model = copy_of_model(folder / "model"), told = model + "/config.json";
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"{\"model_type\": ", "isn't json from byte 16 on"}, {"3", "must be an object"}, {"{}", "model_type"}}) {
    write_file(told, text);
    expect_refused({"eval", model, "--files", kTiny}, {told, part});
    expect_refused({"generate", model, "--prompt", "a"}, {told, part});
  }
}

TEST_CASE("a manifest that is broken is named by who asks what the model was trained on", "[refused]") {
  const Folder folder;
  const std::string model = copy_of_model(folder / "model");
  write_file(model + "/manifest.json", "{\"files\": {");
  expect_refused({"eval", model, "--files", kTiny}, {model + "/manifest.json: it isn't json from byte"});
}

// ---- Numbers and words ----------------------------------------------------------------------------------------------

TEST_CASE("what isn't a finite number, and a seed below 0, are wrong arguments wherever they stand", "[refused]") {
  const Arguments lose{"simulate", kTiny, "--step", "--lose", "1"};
  const std::vector<std::pair<Arguments, std::vector<std::string>>> numbers{
      {{"generate", kModel}, {"--temperature", "--top-p"}},
      {{"eval", kModel, "--tasks", "reverse"}, {"--temperature", "--top-p"}},
      {{"plan", kTiny, "--cluster", "cpu"}, {"--budget-dollars", "--deadline-days", "--checkpoint-seconds"}},
      {{"plan", kTiny, "--cluster", "cpu"}, {"--recovery-seconds", "--start-seconds"}},
      {lose, {"--start-seconds"}},
      {{"rehearse", kTiny}, {"--seconds"}},
      {{"trace", "run", "--out", "x"}, {"--last"}}};
  for (const auto& [command, options] : numbers)
    for (const std::string& option : options)
      for (const std::string value : {"nan", "inf"}) expect_wrong(command, option, value);
  const std::vector<Arguments> seeded{
      {"generate", kModel}, {"eval", kModel, "--tasks", "reverse"}, {"simulate"}, {"inspect", "--simulate", kTiny}};
  for (const Arguments& command : seeded)
    for (const std::string value : {"-1", "18446744073709551616"}) expect_wrong(command, "--seed", value);
}

TEST_CASE("as many worlds are simulated as were asked for, also from the largest seeds on", "[refused]") {
  const std::string out = expect_success({"simulate", "--seed", "18446744073709551614", "--seeds", "3"}).out;
  for (const std::string seed : {"18446744073709551614", "18446744073709551615", "0"})
    CHECK(has(out, "seed " + seed + " | "));
  CHECK(has(out, "3 worlds, 0 broken"));
}

TEST_CASE("writing stops at one token: several are refused", "[refused]") {
  const Arguments writes{"generate", kModel, "--prompt", "1", "--tokens", "2", "--stop"};
  const auto with = [&](const std::string& stop) {
    Arguments all = writes;
    all.push_back(stop);
    return all;
  };
  expect_success(with("+"));
  expect_refused(with("+x"), {"--stop \"+x\" is 2 tokens, must be one"});
  expect_refused(with("\xc3\xa9"), {"is 2 tokens, must be one"});
}

TEST_CASE("an order that isn't one is answered with those that the help lists", "[refused]") {
  const Folder folder;
  const std::string run = folder / "run", orders = "pause, step, resume, kill=NODE, inject=MESSAGE";
  expect_success(tiny_run(run, {"train.steps=1"}));
  for (const std::string order : {"foo", "restart=1", "back", "kil=1"})
    expect_refused({"inspect", run, "--do", order}, {"--do " + order, "one of " + orders});
  CHECK(has(expect_success({"inspect", "--help"}).out, orders));
}

TEST_CASE("documents of bytes need a byte at their end, and the one that is proposed does", "[refused]") {
  const Folder folder;
  write_file(folder / "x.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  const Arguments tokenize{"tokenize", "--tokenizer", "bytes", folder / "x.jsonl", "--out", folder / "x.tokens"};
  expect_refused(tokenize, {"x.jsonl", "which byte ends one", "--eos $'\\n'"});
  Arguments ended = tokenize;
  ended.insert(ended.end(), {"--eos", "\n"});
  CHECK(has(expect_success(ended).out, "8 tokens of 2 documents"));
}

TEST_CASE("a load of experts that says nothing is refused", "[refused]") {
  const Folder folder;
  write_file(folder / "zeros", "0 0 0 0");
  const auto step = [](const std::string& load) {
    return Arguments{"simulate", kTiny, "--step", "--cluster", "cpu", "--load", load};
  };
  for (const std::string load : {"zipf:", "zipf:nan", "zipf:-5", "zipf:1x", "zipf:inf"})
    expect_refused(step(load), {"the load is " + load, "an exponent of 0 or more"});
  expect_refused(step(folder / "zeros"), {"zeros: the sum of all shares is 0"});
  expect_success(step("zipf:0.5"));
}

// ---- Standard input, output and error -------------------------------------------------------------------------------

namespace {

// The command within a shell's script, where it is "$0" "$@".
Ended in_shell(const std::string& script, const Arguments& arguments) {
  Arguments all{"/bin/sh", "-c", script};
  for (const std::string& word : troupe_command(arguments)) all.push_back(word);
  return run(all);
}

}  // namespace

TEST_CASE("what can't be said on standard output is an error, whatever the command", "[refused]") {
  const std::vector<Arguments> commands{{"config", kTiny},
                                        {"config", "--keys"},
                                        {"plan", kTiny},
                                        {"digest", kModel},
                                        {"generate", kModel, "--prompt", "1", "--tokens", "2"},
                                        {"--help"}};
  for (const Arguments& command : commands) {
    INFO(json(command).dump());
    expect_sentence(in_shell("exec \"$0\" \"$@\" >/dev/full", command), {"standard output", "is the disk full"});
  }
}

TEST_CASE("whoever reads only the beginning is told nothing", "[refused]") {
  const std::string keys = expect_success({"config", "--keys"}).out;
  const Ended ended = in_shell("trap '' PIPE; \"$0\" \"$@\" | head -c 5", {"config", "--keys"});
  CHECK(ended.out == keys.substr(0, 5));
  CHECK(ended.err == "");
}

TEST_CASE("a run that is started without standard files says nothing into its own", "[refused]") {
  const Folder folder;
  for (const std::string nodes : {"1", "2"}) {
    const std::string run = folder / nodes;
    const Ended ended =
        in_shell("exec \"$0\" \"$@\" <&- >&- 2>&-", tiny_run(run, {"train.steps=2", "layout.nodes=" + nodes}));
    CHECK(ended.code == 0);
    std::istringstream lines(read_file(run + "/metrics.jsonl"));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) CHECK(json::accept(line));
    CHECK(count > 3);
    CHECK(!has(read_file(run + "/lock"), "step"));
  }
}
