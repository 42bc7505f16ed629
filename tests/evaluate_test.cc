// `troupe eval RUN --tasks` as a person meets it: one JSON line, files, refusals, and the same figures from any layout.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "launcher/answers_file.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

json evaluated(const Arguments& arguments) {
  const Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  CHECK(std::count(ended.out.begin(), ended.out.end(), '\n') == 1);
  return json::parse(ended.out);
}

void expect_refused(const Arguments& arguments, const std::vector<std::string>& parts, int code = 1) {
  const Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  CHECK(ended.code == code);
  CHECK(ended.out == "");
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(ended.err, part));
  }
}

// A few steps of configs/tiny.toml on a task, which evaluate at the end with 16 problems and 4 answers.
std::string trained(const Folder& folder, const std::string& name, const std::string& seed) {
  const Arguments sets{"data.kind=\"task\"", "kind=\"sft\"",       "task.names=[\"reverse\"]",
                       "task.level_min=3",   "task.level_max=4",   "evaluate.problems=16",
                       "evaluate.samples=4", "train.seed=" + seed, "evaluate.exact_match_problems=0"};
  const Ended ended = troupe::test::troupe(tiny_run(folder / name, sets));
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return folder / name;
}

}  // namespace

TEST_CASE("an evaluation repeats to the bit what training saw of its last version, on any layout", "[evaluate]") {
  const Folder folder;
  const std::string run = trained(folder, "run", "1");
  const Arguments ask{"eval", run, "--tasks", "reverse", "--problems", "16", "--samples", "4"};
  const json first = evaluated(ask), seen = metrics_of(run, "answers").back();
  CHECK(first.at("all").at("accuracy").at("value") == seen.at("accuracy"));
  CHECK(first.at("all").at("greedy").at("value") == seen.at("greedy"));
  CHECK(first.at("all").at("length").at("mean").at("value").get<double>() ==
        Approx(seen.at("length_mean").get<double>()));
  CHECK(has(troupe::test::troupe({"digest", run}).out, first.at("weights_digest").get<std::string>()));
  CHECK(first.at("by_level").size() == 2);
  CHECK(first.at("reference").at("perplexity").get<double>() > 1);
  for (const Arguments& layout : std::vector<Arguments>{{"layout.stages=2"}, {"layout.expert_shards=2"}}) {
    json other = evaluated(with_sets(ask, layout));
    for (const char* key : {"all", "by_level", "reference", "problems_digest"}) CHECK(other.at(key) == first.at(key));
  }
}

TEST_CASE("an evaluation's folder holds every answer, and is never written over", "[evaluate]") {
  const Folder folder;
  const std::string run = trained(folder, "run", "1"), out = folder / "evaluation";
  const Arguments ask{"eval", run, "--tasks", "reverse", "--problems", "8", "--samples", "2", "--out", out};
  json told = evaluated(ask);
  json kept = json::parse(read_file(out + "/evaluation.json"));
  CHECK(kept == told);
  const auto problems = troupe::read_answers(out + "/answers.jsonl");
  REQUIRE(problems.size() == 8);
  CHECK(troupe::problems_digest(problems) == told.at("problems_digest"));
  for (const auto& p : problems) CHECK((p.sampled.size() == 2 && p.greedy && p.problem.front() == 'r'));
  expect_refused(ask, {out, "an evaluation is here already"});
}

TEST_CASE("two runs are compared on the same problems, from answers or anew, with the same result", "[evaluate]") {
  const Folder folder;
  const std::string run = trained(folder, "run", "1"), other = trained(folder, "other", "2"), out = folder / "answers";
  const Arguments numbers{"--tasks", "reverse", "--problems", "8", "--samples", "2", "--seed", "5"};
  const auto ask = [&](const std::string& of, const Arguments& more) {
    Arguments all{"eval", of};
    all.insert(all.end(), numbers.begin(), numbers.end());
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  evaluated(ask(other, {"--out", out}));
  const json from_answers = evaluated(ask(run, {"--compare", out})).at("comparison");
  const json anew = evaluated(ask(run, {"--compare", other})).at("comparison");
  for (const char* figure : {"accuracy", "greedy", "reward"}) CHECK(from_answers.at(figure) == anew.at(figure));
  expect_refused({"eval", run, "--tasks", "reverse", "--problems", "8", "--seed", "6", "--compare", out},
                 {out, "answers other problems", "number 1"});
  expect_refused(ask(run, {"--compare", folder / "none"}), {folder / "none", "does not exist"});
}

TEST_CASE("what an evaluation can't do is said in a sentence", "[evaluate]") {
  const Folder folder;
  const std::string run = trained(folder, "run", "1");
  expect_refused({"eval", run, "--tasks", "chess"}, {"task.names has \"chess\"", "countdown"});
  expect_refused({"eval", run, "--tasks", "reverse", "--levels", "4-2"}, {"--levels is \"4-2\"", "2-4"});
  expect_refused({"eval", run, "--tasks", "reverse", "--levels", "2x"}, {"--levels is \"2x\""});
  expect_refused({"eval", run, "--tasks", "reverse", "--temperature", "0"}, {"evaluate.temperature"});
  expect_refused({"eval", run, "--tasks", "reverse", "--top-p", "2"}, {"evaluate.top_p"});
  expect_refused({"eval", run, "--problems", "8"}, {"--problems", "--tasks"}, 2);
  expect_refused({"eval", run, "--tasks", "reverse", "--files", "x"}, {"--files"}, 2);
  expect_refused({"eval", run, "--tasks", "jsonl"}, {"task.files is empty"});
}
