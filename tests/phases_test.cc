// Recipes of several phases, and the budgets that end one. The promise: however often a recipe is interrupted, or stopped
// by a budget and given more, its weights are those of a run that was never stopped.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launcher/config.h"
#include "launcher/report.h"
#include "launcher/report_figures.h"
#include "tests/support/small_run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

constexpr const char* kCold = R"(
[[phase]]
name = "cold"
kind = "sft"
[phase.train]
steps = 40
batch_sequences = 16
learning_rate = 1e-2
[phase.data]
kind = "task"
)";
constexpr const char* kReward = R"(
[[phase]]
name = "reward"
kind = "grpo"
[phase.train]
steps = 30
batch_sequences = 32
learning_rate = 1e-3
[phase.grpo]
group_size = 4
completion_max = 4
)";

constexpr const char* kStudent = R"(
[[phase]]
name = "student"
kind = "distill"
[phase.train]
steps = 10
batch_sequences = 16
learning_rate = 1e-2
[phase.grpo]
completion_max = 4
[phase.distill]
problems = 32
samples = 16
[[phase]]
name = "exam"
kind = "evaluate"
[phase.train]
start_from = "cold"
[phase.grpo]
completion_max = 4
[phase.evaluate]
problems = 16
samples = 2
)";

// A recipe's file and its runs.
class Recipes {
 public:
  explicit Recipes(const std::string& phases = std::string(kCold) + kReward) {
    write_file(config(), small_config() + phases);
  }
  std::string config() const { return folder_ / "recipe.toml"; }
  std::string run(const std::string& name) const { return folder_ / name; }
  Arguments train(const std::string& name, const Arguments& sets = {}) const {
    return with_sets({"train", config(), "--out", run(name), "--quiet"}, sets);
  }
  Arguments resume(const std::string& name, const Arguments& sets = {}) const {
    return train(name, sets) + Arguments{"--resume"};
  }

 private:
  Folder folder_;
};

std::string phase_of(const std::string& run, const std::string& name) { return run + "/phases/" + name; }
json result_of(const std::string& phase) { return json::parse(read_file(phase + "/phase.json")); }
std::string first_line(const Ended& ended) { return ended.out.substr(0, ended.out.find('\n')); }

// One sentence on standard error that says all of `parts`.
void expect_refused(const Arguments& arguments, const std::vector<std::string>& parts) {
  const Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(ended.err.starts_with("troupe: "));
  CHECK(std::count(ended.err.begin(), ended.err.end(), '\n') == 1);
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(ended.err, part));
  }
}

// Does what a person does who is told "...; continue with: COMMAND": pastes it into a shell, and adds `more`.
Ended follow_advice(const std::string& text, const std::string& more = "") {
  const std::string mark = "continue with: ";
  const std::size_t begin = text.find(mark);
  INFO(text);
  REQUIRE(begin != std::string::npos);
  const std::string pasted = text.substr(begin + mark.size(), text.find('\n', begin) - begin - mark.size()) + more;
  Ended ended = run({"/bin/sh", "-c", pasted});
  INFO(pasted << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

std::map<std::string, std::string> files_in(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[entry.path().string()] = read_file(entry.path().string());
  return files;
}

std::size_t steps_of(const std::string& run) { return metrics_of(run, "step").size(); }

}  // namespace

// ---- Phases ---------------------------------------------------------------------------------------------------------

TEST_CASE("phases run one after another, each from the weights of the one before", "[phases]") {
  const Recipes recipes;
  const std::string run = recipes.run("run"), cold = phase_of(run, "cold"), reward = phase_of(run, "reward");
  expect_success(recipes.train("run"));
  CHECK(result_of(cold).at("ended_by") == "train.steps");
  CHECK(result_of(reward).at("ended_by") == "train.steps");
  // The same as two runs.
  const School school;
  CHECK(digest_of(cold) == digest_of(school.run("cold")));
  expect_success(school.train("reward", {"train.steps=30"}));
  CHECK(digest_of(reward) == digest_of(school.run("reward")));
  // Whoever names the run means its last phase.
  CHECK(digest_of(run) == digest_of(reward));
  CHECK(first_line(expect_success({"digest", run})) == digest_of(reward));
  const auto written = [](const std::string& model) {
    return expect_success({"generate", model, "--prompt", "r12=", "--prompt", "r7=", "--tokens", "8"}).out;
  };
  CHECK(written(run) == written(reward));
  CHECK(written(run) != written(cold));
}

TEST_CASE("a student learns from what its teacher got right, and an exam asks whom it is told to", "[phases]") {
  const Recipes recipes(std::string(kCold) + kStudent);
  const Arguments bytes{"model.vocab_size=256"};  // traces are text
  const std::string run = recipes.run("run"), student = phase_of(run, "student"), exam = phase_of(run, "exam");
  expect_success(recipes.train("run", bytes));
  // Every trace is a right answer (digits backwards), with its teacher's name.
  const std::string teacher = digest_of(phase_of(run, "cold"));
  std::istringstream traces(read_file(student + "/traces.jsonl"));
  int count = 0;
  for (std::string line; std::getline(traces, line); ++count) {
    const json trace = json::parse(line);
    const std::string prompt = trace.at("prompt"), completion = trace.at("completion");
    CHECK(prompt == "r" + std::string(completion.rbegin(), completion.rend()) + "=");
    CHECK(trace.at("teacher") == teacher);
  }
  CHECK(count >= 5);
  CHECK(digest_of(student) != teacher);
  // The exam is the teacher's, by name; both answers and figures are kept.
  const json asked = json::parse(read_file(exam + "/evaluation.json"));
  CHECK(asked.dump().find(teacher) != std::string::npos);
  CHECK(asked.at("answer_tokens_max") == 4);
  CHECK(result_of(exam).at("ended_by") == "evaluate.problems");
  // Whoever names the run means the last phase that trained.
  CHECK(digest_of(run) == digest_of(student));
  const std::string report = read_file(run + "/report.md");
  for (const std::string part : {"| cold | sft | 40 |", "| student | distill | 10 |", "| exam | evaluate |", "147K",
                                 "**Benchmarks.**", "**Scaling.**", "**Reliability.**", "**Data sources.**",
                                 "By design the same configuration gives these weights again"}) {
    INFO(part << "\n" << report);
    CHECK(has(report, part));
  }
  // The exam's curves are none, those of the phase before it are.
  expect_success({"plot", run, "--out", run + "/plot.svg"});
  CHECK(has(read_file(run + "/plot.svg"), "<svg"));
  // Nor is an exam a run to look at.
  expect_success({"timeline", run, "--out", run + "/timeline.svg"});
  expect_success({"trace", run, "--out", run + "/trace.json"});
  expect_success({"compare", run, student});
  for (const Arguments& look : {Arguments{"why", run}, {"inspect", run, "--once"}}) {
    const Ended ended = troupe::test::troupe(look);
    INFO(look[0] << ": " << ended.err);
    CHECK(ended.err == "");
    CHECK(ended.out != "");
  }
}

TEST_CASE("the time of a teacher and of an exam is on their phases' bills, and counts against budgets", "[phases]") {
  const Recipes recipes(std::string(kCold) + kStudent);
  const Arguments sets{"model.vocab_size=256", "hardware.dollars_per_hour=3600"};
  const std::string run = recipes.run("run"), student = phase_of(run, "student"), exam = phase_of(run, "exam");
  expect_success(recipes.train("run", sets));
  const auto evaluation = [](const json& bill) { return bill.at("thread_seconds").at("evaluation").get<double>(); };
  const auto bills = metrics_of(student, "bill");
  REQUIRE(bills.size() >= 2);
  CHECK(evaluation(bills.front()) > 0);
  CHECK(bills.front().at("version") == 0);
  CHECK(evaluation(bills.back()) >= evaluation(bills.front()));
  CHECK(result_of(student).at("dollars") == bills.back().at("cost_dollars"));
  // Killed between its evaluation and its bill: the bill is made of what the evaluation says.
  const double seconds = json::parse(read_file(exam + "/evaluation.json")).at("seconds");
  for (const std::string file : {"/phase.json", "/metrics.jsonl"}) fs::remove(exam + file);
  expect_success(recipes.resume("run", sets));
  CHECK(result_of(exam).at("dollars").get<double>() == Approx(seconds).margin(1e-5));
  CHECK(result_of(exam).at("device_hours").get<double>() * 3600 == Approx(seconds).margin(1e-5));
  // A teacher that took all there was leaves nothing to learn with.
  const double taught = bills.front().at("cost_dollars");
  const Arguments little{fmt::format("phase.student.budget.max_cost={}", taught / 100)};
  expect_success(recipes.train("little", sets + little));
  CHECK(result_of(phase_of(recipes.run("little"), "student")).at("ended_by") == "budget");
  CHECK(steps_of(phase_of(recipes.run("little"), "student")) < 10);
}

TEST_CASE("an exam asks what its own phase says", "[phases]") {
  const Recipes recipes(std::string(kCold) + R"(
[[phase]]
name = "exam"
kind = "evaluate"
[phase.task]
level_min = 2
[phase.judge]
command = "read -r r; echo '{\"reward\": 0.25}'"
[phase.grpo]
completion_max = 1
[phase.evaluate]
problems = 4
samples = 2
split = "train"
)");
  expect_success(recipes.train("run"));
  const json asked = json::parse(read_file(phase_of(recipes.run("run"), "exam") + "/evaluation.json"));
  CHECK(asked.at("levels") == json{2, 2});
  CHECK(asked.at("split") == "train");
  CHECK(asked.at("samples") == 2);
  CHECK(asked.at("answer_tokens_max") == 1);  // though no solution is so short
  CHECK(has(asked.at("judge"), "0.25"));
  const std::string report = read_file(recipes.run("run") + "/report.md");
  CHECK(!has(report, "bit for bit"));  // a command may say anything
}

TEST_CASE("a student that is interrupted, while its teacher answers or while it learns, ends with the undisturbed bits",
          "[phases]") {
  const Recipes recipes(std::string(kCold) + kStudent);
  const Arguments sets{"model.vocab_size=256", "phase.student.distill.samples=200", "phase.student.train.steps=60"};
  expect_success(recipes.train("calm", sets));
  const std::string run = recipes.run("run"), student = phase_of(run, "student");
  const auto interrupt = [&](const Arguments& arguments, const std::function<bool()>& when) {
    Process process(troupe_command(arguments));
    REQUIRE(process.follow(when));
    process.signal_group(SIGINT);
    const Ended ended = process.wait();
    INFO(ended.out << ended.err);
    REQUIRE(ended.code == 130);
    CHECK(has(ended.err, "continue with: "));
  };
  interrupt(recipes.train("run", sets), [&] {
    return fs::is_symlink(run + "/current") && fs::read_symlink(run + "/current").filename() == "student";
  });
  CHECK(!fs::exists(student + "/traces.jsonl"));
  interrupt(recipes.resume("run", sets), [&] { return steps_of(student) >= 4; });
  const std::string traces = read_file(student + "/traces.jsonl");
  expect_success(recipes.resume("run", sets));
  CHECK(read_file(student + "/traces.jsonl") == traces);
  CHECK(traces == read_file(phase_of(recipes.run("calm"), "student") + "/traces.jsonl"));
  CHECK(digest_of(run) == digest_of(recipes.run("calm")));
}

TEST_CASE("a student whose teacher got nothing right is refused in a sentence", "[phases]") {
  std::string untaught = std::string(kCold) + kStudent;
  untaught.replace(untaught.find("steps = 40"), 10, "steps = 1");
  const Recipes recipes(untaught);
  const Ended ended = troupe::test::troupe(recipes.train("run"));
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(has(ended.err, "got none of 352 answers right"));
}

TEST_CASE("a phase that is over isn't begun again", "[phases]") {
  const Recipes recipes;
  const std::string run = recipes.run("run");
  expect_success(recipes.train("run"));
  const auto before = files_in(run);
  expect_success(recipes.resume("run"));
  CHECK(files_in(run) == before);
  expect_refused(recipes.train("run"), {run, "a run is here already", "--resume"});
  CHECK(files_in(run) == before);
}

TEST_CASE("a recipe that is interrupted in any phase goes on as it is told, and ends with the undisturbed bits",
          "[phases]") {
  const Recipes recipes;
  expect_success(recipes.train("calm"));
  const std::string undisturbed = digest_of(recipes.run("calm"));
  for (const std::string nodes : {"1", "2"}) {
    for (const std::string name : {"cold", "reward"}) {
      INFO("interrupted in phase " << name << ", " << nodes << " nodes");
      const std::string run = recipes.run(name + nodes), phase = phase_of(run, name);
      Process process(troupe_command(recipes.train(name + nodes, {"layout.nodes=" + nodes})));
      REQUIRE(process.follow([&] { return steps_of(phase) >= 4; }));
      process.signal_group(SIGINT);
      const Ended ended = process.wait();
      INFO(ended.out << ended.err);
      REQUIRE(ended.code == 130);
      CHECK(!fs::exists(phase + "/phase.json"));
      CHECK(digest_of(run) == digest_of(phase));
      follow_advice(ended.err);
      CHECK(fs::exists(phase_of(run, "reward") + "/phase.json"));
      CHECK(digest_of(run) == undisturbed);
      CHECK(steps_of(phase_of(run, "cold")) == 40);
      CHECK(steps_of(phase_of(run, "reward")) == 30);
    }
  }
}

TEST_CASE("a recipe that is killed in any phase, before its first checkpoint too, ends with the undisturbed bits",
          "[phases]") {
  const Recipes recipes;
  expect_success(recipes.train("calm"));
  const std::string undisturbed = digest_of(recipes.run("calm"));
  for (const std::string every : {"0", "3"}) {
    for (const std::string name : {"cold", "reward"}) {
      INFO("killed in phase " << name << ", a checkpoint every " << every << " steps");
      const std::string run = recipes.run(name + every);
      const Arguments sets{"checkpoint.every_steps=" + every};
      {
        Process process(troupe_command(recipes.train(name + every, sets)));
        REQUIRE(process.follow([&] { return steps_of(phase_of(run, name)) >= 8; }));
        process.signal_group(SIGKILL);
        REQUIRE(process.wait().signal == SIGKILL);
      }
      expect_success(recipes.resume(name + every, sets));
      CHECK(digest_of(run) == undisturbed);
    }
  }
}

TEST_CASE("a name that is set is the run's, and no phase's", "[phases]") {
  const Recipes recipes;
  const std::string run = recipes.run("run");
  expect_success(recipes.train("run", {"name=\"other\"", "phase.reward.budget.max_steps=2"}));
  CHECK(steps_of(phase_of(run, "cold")) == 40);
  CHECK(steps_of(phase_of(run, "reward")) == 2);
  CHECK(read_file(run + "/report.md").starts_with("# other\n"));
  expect_refused(recipes.train("same", {"phase.reward.name=cold"}),
                 {"phase 2 has the name \"cold\", which another has"});
}

TEST_CASE("a recipe doesn't write over a run, nor a run over a recipe's", "[phases]") {
  const Recipes recipes;
  const School school;
  const auto cold = files_in(school.run("cold"));
  expect_refused(with_sets({"train", recipes.config(), "--out", school.run("cold")}, {}), {"a run is here already"});
  CHECK(files_in(school.run("cold")) == cold);
  fs::remove_all(school.run("cold") + "/checkpoints");  // before it saved
  expect_refused(with_sets({"train", recipes.config(), "--out", school.run("cold")}, {}), {"a run is here already"});
  CHECK(!fs::exists(school.run("cold") + "/phases"));
  expect_success(recipes.train("run", {"phase.reward.budget.max_steps=2"}));
  const auto before = files_in(recipes.run("run"));
  expect_refused(with_sets({"train", school.config(), "--out", recipes.run("run")}, kSupervised),
                 {"a run is here already"});
  CHECK(files_in(recipes.run("run")) == before);
}

TEST_CASE("a recipe goes on with the numbers that it began with, those of phases that are over too", "[phases]") {
  const Recipes recipes;
  const std::string run = recipes.run("run");
  expect_success(recipes.train("run", {"phase.reward.budget.max_steps=2"}));
  const auto before = files_in(run);
  expect_refused(recipes.resume("run", {"train.seed=2"}), {phase_of(run, "cold"), "train.seed: 1 -> 2"});
  expect_refused(recipes.resume("run", {"phase.cold.train.beta1=0.5"}), {phase_of(run, "cold"), "train.beta1"});
  expect_refused(recipes.resume("run", {"phase.reward.grpo.top_p=0.5"}), {phase_of(run, "reward"), "grpo.top_p"});
  CHECK(files_in(run) == before);
}

TEST_CASE("a recipe that can't be is refused in a sentence, with its place", "[phases]") {
  const Recipes same(std::string(kCold) + kCold), strange(std::string(kCold) + "[phase.train.other]\nx = 1\n"),
      misspelt(std::string(kCold) + kReward + "group_sise = 3\n"), number("[x]\n"),
      nested(kCold + std::string(kReward) + "[[phase.phase]]\nname = \"a\"\n"), fine;
  expect_refused(same.train("run"), {same.config(), "phase 2 has the name \"cold\", which another has"});
  const std::string text = read_file(misspelt.config());
  const auto line = std::count(text.begin(), text.end(), '\n');
  expect_refused(misspelt.train("run"), {fmt::format("{}:{}: grpo.group_sise is not a key", misspelt.config(), line),
                                         "did you mean grpo.group_size"});
  expect_refused(strange.train("run"), {strange.config(), "train.other is not a table"});
  expect_refused(nested.train("run"), {nested.config(), "phase"});
  write_file(number.config(), "phase = 3\n" + small_config());
  expect_refused(number.train("run"), {number.config() + ":1: phase is 3 (an integer), must be tables: [[phase]]"});
  expect_refused(fine.train("run", {"phase.warm.x=1"}), {"--set phase.warm.x=1: there is no phase \"warm\""});
  expect_refused(fine.train("run", {"phase.cold.x=1"}), {"x is not a key"});
  expect_refused(fine.train("run", {"phase.cold.train.steps=0"}), {"train.steps is 0, must be 1.."});
  expect_refused(fine.train("run", {"phase=3"}), {"phase"});
  for (const std::string of_one : {"max_steps=3", "max_tokens=300", "until_accuracy=0.5"})
    expect_refused(fine.train("run", {"budget." + of_one}), {"ends a phase, not all of them", "phase.NAME.budget."});
  for (const Recipes* each : {&same, &misspelt, &strange, &number, &nested, &fine})
    CHECK(!fs::exists(each->run("run")));
}

TEST_CASE("who asks a model needs one, and is a phase", "[phases]") {
  const Recipes students(kStudent), fine;
  expect_refused(
      students.train("run"),
      {students.config(), "phase \"student\" asks a model, and no phase before it trains one", "distill.teacher"});
  const std::string text = kStudent;
  const Recipes exam(text.substr(text.rfind("[[phase]]")));
  expect_refused(exam.train("run", {"phase.exam.train.start_from=\"\""}),
                 {exam.config(), "phase \"exam\" asks a model", "train.start_from"});
  const School school;
  for (const std::string kind : {"evaluate", "distill"})
    expect_refused(
        with_sets({"train", school.config(), "--out", fine.run("run")}, {"kind=" + kind, "evaluate.problems=4"}),
        {school.config(), "kind is \"" + kind + "\"", "[[phase]]"});
  CHECK(!fs::exists(fine.run("run")));
}

// ---- The report -----------------------------------------------------------------------------------------------------

TEST_CASE("what was done twice is reported once, and what was measured once is one figure", "[phases]") {
  const Folder folder;
  troupe::Config config = troupe::config_from_text(small_config(), "small.toml",
                                                   {"kind=grpo", "train.batch_sequences=32", "grpo.group_size=4"});
  const std::string step = R"({"kind":"step","tokens":64,"verdict":"skip","gaps":1,"targets":10,"step":)",
                    rollout = R"({"kind":"rollout","answers":32,"checked":5,"rollout":)",
                    loss = R"({"kind":"evaluation","tokens":9,"loss":1.5,"version":)";
  write_file(folder / "metrics.jsonl", rollout + "0}\n" + step + "0}\n" + rollout + "1}\n" + step + "1}\n" + rollout +
                                           "1}\n" + step + "1}\n" + loss + "2}\n" + loss + "2}\n{\"kind\":\"st");
  const troupe::RunFigures f = troupe::read_figures(config, folder / "");
  CHECK(f.steps == 2);
  CHECK(f.tokens == 64);
  CHECK(f.skipped == 2);
  CHECK(f.gaps == 2);
  CHECK(f.answers_sampled == 64);
  CHECK(f.checked == 2 * (10 + 5));
  CHECK(f.loss == std::map<std::int64_t, double>{{2, 1.5}});
  config.train.start_from = folder / "gone";
  troupe::write_report({.name = "small", .has_phases = false, .phases = {config}, .budget = {}}, folder / "");
  const std::string report = read_file(folder / "report.md");
  INFO(report);
  for (const std::string& part : Arguments{"| 1.5000 |", "held-out loss as measured once: 1.5000", "147K",
                                           "| weights to start from: " + folder / "gone" + " | | | missing now |"})
    CHECK(has(report, part));
  CHECK(!has(report, "1.5000 ->"));
}

TEST_CASE("a run without reinforcement is reported without what is asked of one", "[phases]") {
  const School school;
  const std::string report = read_file(school.run("cold") + "/report.md");
  CHECK(has(report, "| small | sft | 40 |"));
  CHECK(!has(report, "147K"));
  CHECK(!has(report, "**Benchmarks.**"));
}

// ---- Budgets --------------------------------------------------------------------------------------------------------

namespace {

// Of one kind or the other, with a learning rate that a shorter plan would change.
const Arguments kLong{"train.schedule=cosine", "train.steps=40"};

std::vector<double> rates_of(const std::string& run) {
  std::vector<double> rates;
  for (const json& step : metrics_of(run, "step")) rates.push_back(step.at("learning_rate"));
  return rates;
}

// The budget ends the run; with more it goes on to the bits, and by the learning rates, of a run that was never stopped.
// What it had done when it was stopped.
std::vector<json> expect_stop_and_go(School& school, const Arguments& numbers, const std::string& budget,
                                     const std::string& reason) {
  const std::string name = "stopped-" + reason, whole = name + "-whole", run = school.run(name);
  INFO(json(numbers).dump() << " " << budget);
  expect_success(school.train(whole, numbers));
  expect_success(school.train(name, numbers + Arguments{budget}));
  CHECK(metrics_of(run, "finished").back().at("reason") == reason);
  const std::vector<json> done = metrics_of(run, "step");
  CHECK(done.size() < steps_of(school.run(whole)));
  expect_success(school.resume(name, numbers + Arguments{budget}));  // nothing is left: nothing more is done
  CHECK(steps_of(run) == done.size());
  expect_success(school.resume(name, numbers));
  CHECK(digest_of(run) == digest_of(school.run(whole)));
  CHECK(rates_of(run) == rates_of(school.run(whole)));
  return done;
}

}  // namespace

TEST_CASE("a budget of steps or tokens ends a run exactly, and with more it goes on as if never stopped", "[phases]") {
  for (const Arguments& kind : {kSupervised, kReinforcement}) {
    School school;
    const Arguments numbers = kind + kLong;
    CHECK(expect_stop_and_go(school, numbers, "budget.max_steps=7", "budget.max_steps").size() == 7);
    const auto done = expect_stop_and_go(school, numbers, "budget.max_tokens=700", "budget.max_tokens");
    REQUIRE(done.size() >= 2);
    CHECK(done.back().at("tokens") >= 700);
    CHECK(done[done.size() - 2].at("tokens") < 700);
  }
}

TEST_CASE("a budget of dollars ends a run within a step of it, and with more it goes on as if never stopped",
          "[phases]") {
  const double limit = 0.25;  // at a dollar a second
  School school;
  const Arguments numbers =
      kSupervised + kLong + Arguments{"train.batch_sequences=256", "train.steps=100", "hardware.dollars_per_hour=3600"};
  const auto done = expect_stop_and_go(school, numbers, fmt::format("budget.max_cost={}", limit), "budget");
  double longest = 0;
  for (const json& step : done) longest = std::max(longest, step.at("step_seconds").get<double>());
  CHECK(done.back().at("cost_dollars") >= limit);
  CHECK(done.back().at("cost_dollars") <= limit + longest);
  // The step before was told that there is another, while there was money.
  if (done.size() > 2) CHECK(done[done.size() - 3].at("cost_dollars") < limit);
  const json bill = metrics_of(school.run("stopped-budget"), "bill").back();
  CHECK(bill.at("cost_dollars") >= done.back().at("cost_dollars"));
}

TEST_CASE("the dollars of a recipe are those of all its phases together", "[phases]") {
  const Recipes recipes;
  // The first phase is the dear one: the second by itself would never reach what both have cost.
  const Arguments sets{"phase.cold.hardware.dollars_per_hour=3600", "phase.reward.hardware.dollars_per_hour=0.36"};
  const auto limited = [](double limit) { return Arguments{fmt::format("budget.max_cost={}", limit)}; };
  expect_success(recipes.train("calm", sets));
  const auto stops_in = [&](const std::string& name, const Ended& ended) {
    INFO(ended.out << ended.err);
    CHECK(has(ended.err, "budget.max_cost is reached in phase " + name));
    return ended.err;
  };
  const auto goes_on = [&](const std::string& run, const std::string& told) {
    follow_advice(told, " --set budget.max_cost=0");
    CHECK(digest_of(recipes.run(run)) == digest_of(recipes.run("calm")));
    CHECK(steps_of(phase_of(recipes.run(run), "reward")) == 30);
  };
  goes_on("first", stops_in("cold", expect_success(recipes.train("first", sets + limited(1e-6)))));

  const std::string second = recipes.run("second");
  Process process(troupe_command(recipes.train("second", sets)));
  REQUIRE(process.follow([&] { return steps_of(phase_of(second, "reward")) >= 4; }));
  process.signal_group(SIGINT);
  REQUIRE(process.wait().code == 130);
  double spent = 0;
  for (const std::string name : {"cold", "reward"})
    spent += metrics_of(phase_of(second, name), "bill").back().at("cost_dollars").get<double>();
  goes_on("second", stops_in("reward", expect_success(recipes.resume("second", sets + limited(spent + 1e-9)))));
}

TEST_CASE("an accuracy ends a supervised phase, once", "[phases]") {
  const Recipes recipes;
  const Arguments until{"phase.cold.budget.until_accuracy=0.1", "phase.cold.evaluate.every_steps=5",
                        "evaluate.problems=16", "phase.cold.train.steps=400", "phase.cold.checkpoint.every_steps=5"};
  expect_success(recipes.train("run", until));
  const std::string run = recipes.run("run"), cold = phase_of(run, "cold");
  CHECK(result_of(cold).at("ended_by") == "budget.until_accuracy");
  const auto answers = metrics_of(cold, "answers");
  REQUIRE(answers.size() >= 3);
  for (std::size_t i = 0; i + 2 < answers.size(); ++i) CHECK(answers[i].at("accuracy") < 0.1);
  CHECK(answers[answers.size() - 2].at("accuracy") >= 0.1);  // then one more step, and a last look
  CHECK(steps_of(cold) < 400);
  CHECK(steps_of(phase_of(run, "reward")) == 30);
}

TEST_CASE("a run that an accuracy has ended stays as it is, and one killed just before ends with the same bits",
          "[phases]") {
  School school;
  const Arguments until =
      kSupervised + Arguments{"budget.until_accuracy=0.1", "evaluate.every_steps=5", "evaluate.problems=16",
                              "train.steps=400", "checkpoint.every_steps=10"};
  const std::string run = school.run("run");
  expect_success(school.train("run", until));
  const std::string digest = digest_of(run);
  const std::size_t steps = steps_of(run);
  REQUIRE(steps < 400);
  expect_success(school.resume("run", until));
  CHECK(steps_of(run) == steps);
  CHECK(digest_of(run) == digest);
  fs::remove_all(checkpoints_of(run).back());  // killed before it was written
  expect_success(school.resume("run", until));
  CHECK(metrics_of(run, "step").back().at("step") == steps - 1);
  CHECK(digest_of(run) == digest);
}
