// What a run leaves in its folder, when something there is damaged, full or changed: nothing is lost without a word, and
// what goes on ends with the undisturbed bits.
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "launcher/run_folder.h"
#include "tests/support/small_run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

// Of the checkpoints that are not set aside.
std::vector<std::string> checkpoint_names(const std::string& run) {
  std::vector<std::string> names;
  for (const std::string& path : checkpoints_of(run))
    if (!path.ends_with(".damaged")) names.push_back(fs::path(path).filename());
  return names;
}

std::set<std::int64_t> versions_of(const std::string& run, const std::string& kind) {
  std::set<std::int64_t> versions;
  for (const json& line : metrics_of(run, kind)) versions.insert(line.at("version").get<std::int64_t>());
  return versions;
}

}  // namespace

TEST_CASE("a damaged checkpoint is set aside and doesn't push out the whole ones", "[saved]") {
  const Folder folder;
  const std::string run = folder / "run", whole = folder / "whole";
  const Arguments sets{"train.steps=12", "checkpoint.every_steps=4", "checkpoint.keep_last=3"};
  expect_success(tiny_run(whole, sets));
  expect_success(tiny_run(run, sets + Arguments{"budget.max_steps=8"}));
  const std::string newest = checkpoints_of(run).back();
  REQUIRE(newest.ends_with("step-00000008"));
  fs::resize_file(newest + "/model.safetensors", 1000);
  const Ended ended = expect_success(
      tiny_resume(run, sets + Arguments{"checkpoint.keep_last=1", "checkpoint.every_steps=1", "budget.max_steps=6"}));
  CHECK(has(ended.err, "it is now " + newest + ".damaged, trying the one before"));
  CHECK(fs::exists(newest + ".damaged/model.safetensors"));
  CHECK(checkpoint_names(run) == std::vector<std::string>{"step-00000006"});
  expect_success(tiny_resume(run, sets));
  CHECK(digest_of(run) == digest_of(whole));
}

TEST_CASE("a run of which no checkpoint is whole says that it begins again", "[saved]") {
  const Folder folder;
  const std::string run = folder / "run", whole = folder / "whole";
  expect_success(tiny_run(whole, {"train.steps=9"}));
  expect_success(tiny_run(run, {"train.steps=9", "checkpoint.every_steps=3", "budget.max_steps=6"}));
  for (const std::string& path : checkpoints_of(run)) fs::resize_file(path + "/model.safetensors", 1000);
  const Ended ended = expect_success(tiny_resume(run, {"train.steps=9"}));
  CHECK(has(ended.err, "there is none before it: the run begins again"));
  CHECK(checkpoint_names(run) == std::vector<std::string>{"step-00000009"});
  CHECK(digest_of(run) == digest_of(whole));
}

TEST_CASE("a run whose last checkpoint finds no place fails and says so, and its end can be had again", "[saved]") {
  const Folder folder;
  const std::string whole = folder / "whole";
  const Arguments sets{"train.steps=40", "checkpoint.every_steps=0"};
  expect_success(tiny_run(whole, sets));
  for (const std::string nodes : {"1", "2"})
    for (const bool interrupted : {false, true}) {
      INFO(nodes << " nodes, interrupted " << interrupted);
      const std::string run = folder / (nodes + (interrupted ? "i" : ""));
      const Arguments own = sets + Arguments{"layout.nodes=" + nodes};
      Arguments words = tiny_run(run, own);
      words.push_back("--quiet");
      Process process(troupe_command(words));
      REQUIRE(process.follow([&] { return metrics_of(run, "step").size() >= 2; }));
      fs::remove_all(run + "/checkpoints");
      write_file(run + "/checkpoints", "in the way");
      if (interrupted) process.signal_group(SIGINT);
      const Ended ended = process.wait();
      CHECK(ended.code == 1);
      CHECK(has(ended.err, " was not written: "));
      CHECK(has(ended.err, "what was learned since the one before is lost"));
      CHECK(!has(ended.err, "saved;"));
      fs::remove(run + "/checkpoints");
      expect_success(tiny_resume(run, own));
      CHECK(digest_of(run) == digest_of(whole));
    }
}

TEST_CASE("metrics that find no room wait, and none is lost", "[saved]") {
  const Folder folder;
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  {
    troupe::RunFolder run(folder / "run", false);
    run.append_metrics(R"({"kind":"step","step":0})");
    rlimit small = before;
    small.rlim_cur = 40;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    for (const char* const line : {R"({"kind":"step","step":1})", R"({"kind":"step","step":2})"})
      run.append_metrics(line);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK(metrics_of(folder / "run", "step").size() == 1);
    run.append_metrics(R"({"kind":"step","step":3})");
  }
  std::signal(SIGXFSZ, SIG_DFL);
  const auto steps = metrics_of(folder / "run", "step");
  REQUIRE(steps.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(steps[i].at("step") == i);
}

TEST_CASE("metrics go on behind a line that a killed run left without its end", "[saved]") {
  const Folder folder;
  const std::string run = folder / "run";
  { troupe::RunFolder begun(run, false); }
  write_file(run + "/metrics.jsonl", R"({"kind":"step","st)");
  write_file(run + "/config.toml", "");
  troupe::RunFolder again(run, true);
  again.append_metrics(R"({"kind":"step","step":7})");
  REQUIRE(metrics_of(run, "step").size() == 1);
  CHECK(metrics_of(run, "step")[0].at("step") == 7);
}

TEST_CASE("a run that stopped where an evaluation was due makes it when it goes on, and keeps the same best",
          "[saved]") {
  const Folder folder;
  const std::string whole = folder / "whole", stopped = folder / "stopped";
  const Arguments sets{"train.steps=20",          "train.learning_rate=0.2",  "train.warmup_steps=0",
                       "train.schedule=constant", "evaluate.every_steps=2",   "checkpoint.every_steps=2",
                       "checkpoint.keep_last=1",  "checkpoint.keep_best=true"};
  expect_success(tiny_run(whole, sets));
  expect_success(tiny_run(stopped, sets + Arguments{"budget.max_steps=18"}));
  expect_success(tiny_resume(stopped, sets));
  CHECK(versions_of(stopped, "evaluation") == versions_of(whole, "evaluation"));
  CHECK(checkpoint_names(stopped) == checkpoint_names(whole));
  CHECK(digest_of(stopped) == digest_of(whole));
}

TEST_CASE("a held-out loss that is no number ends nothing", "[saved]") {
  const Folder folder;
  const std::string run = folder / "run";
  const Arguments sets{"train.learning_rate=1e38", "train.warmup_steps=0", "train.steps=4", "evaluate.every_steps=2"};
  for (const std::string nodes : {"1", "2"}) {
    const std::string own = run + nodes;
    const Ended ended = troupe::test::troupe(tiny_run(own, sets + Arguments{"layout.nodes=" + nodes}));
    INFO(ended.out << ended.err);
    CHECK(ended.code == 0);
    CHECK(metrics_of(own, "evaluation").back().at("loss").is_null());
  }
}

TEST_CASE("a run isn't resumed with other judges, lengths or data than it began with", "[saved]") {
  School school;
  const Arguments few = kReinforcement + Arguments{"train.steps=4", "judge.command=read r; echo '{\"reward\": 1}'"};
  expect_success(school.train("run", few + Arguments{"budget.max_steps=2"}));
  for (const std::string change : {"judge.command=read r; echo '{\"reward\": 0}'", "generate.length_max=7"}) {
    const Ended ended = troupe::test::troupe(school.resume("run", few + Arguments{change}));
    INFO(change << ": " << ended.err);
    CHECK(ended.code == 1);
    CHECK(has(ended.err, "can't resume as the same run: " + change.substr(0, change.find('='))));
  }
  const Folder folder;
  const std::string text = folder / "text.txt", run = folder / "run";
  write_file(text, std::string(4000, 'a') + std::string(4000, 'b'));
  const Arguments sets{"data.kind=text", "data.files=" + text, "model.vocab_size=256", "train.steps=6"};
  expect_success(tiny_run(run, sets + Arguments{"budget.max_steps=3"}));
  write_file(text, std::string(4000, 'b') + std::string(4000, 'a'));
  const Ended ended = troupe::test::troupe(tiny_resume(run, sets));
  CHECK(ended.code == 1);
  CHECK(has(ended.err, "text.txt has other contents than when this run began"));
  write_file(text, std::string(4000, 'a') + std::string(4000, 'b'));
  expect_success(tiny_resume(run, sets));
}

TEST_CASE("who resumes what isn't there is told", "[saved]") {
  const Folder folder;
  const Ended ended = troupe::test::troupe(tiny_resume(folder / "mistyped", {}));
  CHECK(ended.code == 1);
  CHECK(has(ended.err, "there is no run to resume"));
  CHECK(!fs::exists(folder / "mistyped"));
}

TEST_CASE("an interrupt that comes to a process and to its group at once is one", "[saved]") {
  const Folder folder;
  for (const std::string nodes : {"1", "2"}) {
    const std::string run = folder / nodes;
    Process process(troupe_command(tiny_run(run, {"train.steps=100000", "layout.nodes=" + nodes})));
    REQUIRE(process.follow([&] { return metrics_of(run, "step").size() >= 2; }));
    ::kill(process.pid(), SIGINT);
    process.signal_group(SIGINT);
    const Ended ended = process.wait();
    INFO(ended.err);
    CHECK(ended.code == 130);
    CHECK(has(ended.err, "saved; continue with: "));
  }
}

TEST_CASE("the rate of decoding is of the time that it takes", "[saved]") {
  const auto begin = std::chrono::steady_clock::now();
  const Ended ended = expect_success({"profile", TROUPE_SOURCE_DIR "/configs/tiny.toml", "--decode", "3", "--context",
                                      "8", "--tokens", "16", "--set", "device.kind=cpu"});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const std::size_t at = ended.out.find("threads: ");
  REQUIRE(at != std::string::npos);
  const double rate = std::stod(ended.out.substr(at + std::string("threads: ").size()));
  CHECK(rate > 3 * 15 / took.count());
  CHECK(rate < 1e6);
}
