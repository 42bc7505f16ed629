// Reinforcement as a person runs it, in real processes. The promise: what is sampled, what it is worth and what is learned
// from it depend on the configuration's numbers alone: not on the layout, nor on who was killed or stopped meanwhile.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "tests/support/small_run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

const Arguments kTwins{"layout.nodes=2", "layout.replicas=2"};
const Arguments kStages{"layout.nodes=2", "layout.stages=2", "layout.expert_shards=2"};
const Arguments kAll{"layout.nodes=4", "layout.replicas=2", "layout.stages=2", "layout.expert_shards=2"};
const Arguments kFewPlaces{"generate.sequences_max=3"};
const Arguments kNoLag{"grpo.rollout_lag=0"}, kLag{"grpo.rollout_lag=2"};

// What a run has told since it was begun or resumed last.
struct Told {
  int lives = 0;
  std::set<std::int64_t> steps, rollouts;
  std::size_t checkpoints = 0;
};

Told told_by(const std::string& run) {
  Told told;
  std::istringstream lines(read_file(run + "/metrics.jsonl"));
  for (std::string text; std::getline(lines, text);) {
    const json line = json::parse(text, nullptr, false);
    if (line.is_discarded()) continue;
    const std::string kind = line.at("kind");
    if (kind == "ready") told = {told.lives + 1, {}, {}, 0};
    if (kind == "step") told.steps.insert(line.at("step").get<std::int64_t>());
    if (kind == "rollout") told.rollouts.insert(line.at("rollout").get<std::int64_t>());
    if (kind == "checkpoint") ++told.checkpoints;
  }
  return told;
}

using Moment = std::function<bool(const Told& told)>;

Moment at_step(std::size_t count) {
  return [count](const Told& told) { return told.steps.size() >= count; };
}
Moment at_checkpoint(std::size_t count) {
  return [count](const Told& told) { return told.checkpoints >= count; };
}
// So many steps are done, and the last rollout that they owe isn't on disk yet: it is being sampled.
Moment inside_rollout(std::size_t steps, std::size_t lag) {
  return [=](const Told& told) {
    return told.steps.size() >= steps && told.rollouts.size() < told.steps.size() + lag + 1;
  };
}

// What befalls a node: at which moment, whether it is the conductor's, and the signal.
struct Blow {
  Moment moment;
  bool conductors;
  int signal;
};

// The conductor's node hosts the judges too, once they were asked.
pid_t victim_of(const Process& process, bool conductors) {
  const std::vector<pid_t> nodes = nodes_of(process);
  for (const pid_t node : nodes) {
    bool has_judge = false;
    std::error_code gone;
    for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(node) + "/task", gone))
      has_judge |= !read_file(task.path() / "children").empty();
    if (has_judge == conductors) return node;
  }
  return -1;
}

void strike(Process& process, const std::string& run, const Blow& blow) {
  pid_t victim = -1;
  const auto reached = [&] {
    if (!blow.moment(told_by(run)) || nodes_of(process).size() != 2) return false;
    return (victim = victim_of(process, blow.conductors)) > 0;
  };
  REQUIRE(process.follow(reached));
  ::kill(victim, blow.signal);
  const std::size_t done = told_by(run).steps.size();
  const bool went_on = process.follow([&] {
    const std::vector<pid_t> nodes = nodes_of(process);
    return std::find(nodes.begin(), nodes.end(), victim) == nodes.end() && told_by(run).steps.size() > done + 1;
  });
  INFO("signal " << blow.signal << " after " << done << " steps; the launcher says:\n" << process.err());
  REQUIRE(went_on);
}

void expect_rides_through(School& school, const Arguments& numbers, const std::vector<Blow>& blows) {
  const Arguments sets = numbers + Arguments{"train.steps=60", "checkpoint.every_steps=7"};
  const Arguments two_nodes{"layout.nodes=2", "layout.stages=2", "layout.expert_shards=2", "limits.heartbeat_ms=100",
                            "limits.silence_ms=700"};
  const std::string undisturbed = school.digest_after(sets), run = school.run("struck" + numbers[0]);
  Process process(troupe_command(school.train("struck" + numbers[0], sets + two_nodes)));
  for (const Blow& blow : blows) strike(process, run, blow);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 0);
  CHECK(metrics_of(run, "step").size() == 60);  // each is told once
  CHECK(metrics_of(run, "rollout").size() == 60);
  CHECK(digest_of(run) == undisturbed);
}

// Who has ended has no command line, though it may wait for init to notice.
bool ends_soon(pid_t pid) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (read_file("/proc/" + std::to_string(pid) + "/cmdline").empty()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// Kills the whole process group at the moment. Judges are in groups of their own; they end by themselves.
void kill_at(const Moment& moment, int life, const std::string& run, const Arguments& arguments) {
  Process process(troupe_command(arguments));
  const bool reached = process.follow([&] {
    const Told told = told_by(run);
    return told.lives == life && moment(told);
  });
  const std::vector<pid_t> judges = judges_of(process);
  process.signal_group(SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  REQUIRE(reached);
  REQUIRE(ended.signal == SIGKILL);
  REQUIRE(process.all_gone(5000));
  for (const pid_t judge : judges) CHECK(ends_soon(judge));
}

// Every answer that a run has sampled, as its journal tells it.
std::vector<json> answers_of(const std::string& run) {
  std::vector<json> answers;
  for (const auto& rollout : fs::directory_iterator(run + "/rollouts")) {
    std::istringstream lines(read_file(rollout.path() / "answers.jsonl"));
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) answers.push_back(json::parse(line));
  }
  return answers;
}

}  // namespace

// ---- Same bits ------------------------------------------------------------------------------------------------------

TEST_CASE("reinforcement gives the same bits on any layout, with a lag and without", "[reinforcement]") {
  School school;
  std::vector<std::string> digests{digest_of(school.run("cold"))};
  for (const Arguments& numbers : {kNoLag, kLag}) {
    digests.push_back(school.digest_after(numbers));
    for (const Arguments& layout : {kTwins, kStages, kAll, kFewPlaces, kTwins + kFewPlaces}) {
      INFO(json(numbers + layout).dump());
      CHECK(school.digest_after(numbers + layout) == digests.back());
    }
  }
  std::sort(digests.begin(), digests.end());
  CHECK(std::unique(digests.begin(), digests.end()) == digests.end());  // all learned, and each something else
}

TEST_CASE("two updates a rollout, the likeliest tokens and useful groups alone give the same bits on any layout",
          "[reinforcement]") {
  School school;
  const Arguments numbers{"grpo.updates_per_rollout=2", "grpo.top_p=0.9", "grpo.dynamic_sampling=true"};
  const std::string digest = school.digest_after(numbers);
  CHECK(school.digest_after(numbers + kAll) == digest);
  for (const std::string& without : numbers) {
    Arguments fewer = numbers;
    std::erase(fewer, without);
    INFO("without " << without);
    CHECK(school.digest_after(fewer) != digest);
  }
}

TEST_CASE("the weights that sampled an answer give it the recorded log-probabilities again, to the bit",
          "[reinforcement]") {
  const School school;
  for (const Arguments& layout : {Arguments{}, kAll, Arguments{"train.dtype=bfloat16"}}) {
    const std::string name = std::to_string(layout.size());
    expect_success(school.train(name, kNoLag + layout));
    const auto steps = metrics_of(school.run(name), "step");
    CHECK(steps.size() == 20);
    for (const json& step : steps) {
      INFO(json(layout).dump() << " " << step.dump());
      CHECK(step.at("gaps") == 0);
      CHECK(step.at("gap") == 0);
    }
  }
  expect_success(school.train("lag", kLag));  // others give others
  CHECK(metrics_of(school.run("lag"), "step").back().at("gaps") > 0);
}

// ---- Kills ----------------------------------------------------------------------------------------------------------

TEST_CASE("reinforcement rides through kill -9 and SIGSTOP of any node, at any moment", "[reinforcement]") {
  School school;
  expect_rides_through(school, kNoLag,
                       {{inside_rollout(3, 0), true, SIGKILL},
                        {inside_rollout(10, 0), false, SIGKILL},
                        {at_step(20), true, SIGKILL},
                        {at_step(30), false, SIGSTOP}});
  expect_rides_through(school, kLag,
                       {{inside_rollout(2, 2), true, SIGKILL},
                        {at_checkpoint(1), true, SIGKILL},
                        {at_step(25), false, SIGKILL},
                        {inside_rollout(35, 2), true, SIGSTOP}});
}

TEST_CASE("held-out problems that a node dies over are answered again, and told once", "[reinforcement]") {
  School school;
  const Arguments sets{"evaluate.problems=16", "evaluate.samples=100", "evaluate.every_steps=4"};
  expect_success(school.train("calm", sets));
  const std::string run = school.run("struck");
  Process process(troupe_command(school.train("struck", sets + kStages)));
  const auto answering = [&](std::size_t times) {  // asked so often, and not told yet
    const std::size_t told = metrics_of(run, "answers").size();
    return told == times && told_by(run).steps.size() == 4 * times;
  };
  for (const auto& [times, conductors] : std::map<std::size_t, bool>{{1, false}, {3, true}}) {
    pid_t victim = -1;
    REQUIRE(process.follow([&, at = times] { return answering(at); }));
    REQUIRE((victim = victim_of(process, conductors)) > 0);
    ::kill(victim, SIGKILL);
  }
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  CHECK(has(ended.err, "is lost"));
  CHECK(metrics_of(run, "answers") == metrics_of(school.run("calm"), "answers"));
  CHECK(digest_of(run) == digest_of(school.run("calm")));
}

TEST_CASE("judges that are killed or stopped are replaced, and what they were asked is asked again",
          "[reinforcement]") {
  School school;
  const Arguments sets{"train.steps=40", "judge.wall_seconds=2", "judge.cpu_seconds=1"};
  const std::string undisturbed = school.digest_after(sets), run = school.run("struck");
  Process process(troupe_command(school.train("struck", sets)));
  for (const auto& [step, signal] :
       std::vector<std::pair<std::size_t, int>>{{1, SIGKILL}, {6, SIGKILL}, {12, SIGSTOP}, {20, SIGKILL}}) {
    std::vector<pid_t> judges;
    REQUIRE(process.follow(
        [&, at = step] { return inside_rollout(at, 0)(told_by(run)) && (judges = judges_of(process)).size() == 2; }));
    for (const pid_t judge : judges) ::kill(judge, signal);
    const bool replaced = process.follow([&] {
      const std::vector<pid_t> now = judges_of(process);
      return std::none_of(judges.begin(), judges.end(),
                          [&](pid_t judge) { return std::count(now.begin(), now.end(), judge) != 0; });
    });
    INFO(process.err());
    REQUIRE(replaced);
  }
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 0);
  CHECK(digest_of(run) == undisturbed);
  const std::string log = read_file(run + "/logs/node-0.log");
  CHECK(has(log, "the judge hung: no verdict within 2 s"));
}

TEST_CASE("reinforcement that is killed at any moment and resumed ends with the undisturbed bits", "[reinforcement]") {
  School school;
  struct Life {
    Arguments numbers;
    std::vector<Moment> kills;
    std::vector<Arguments> layouts;  // of each part of it
  };
  const Arguments one{}, forty{"train.steps=40"}, often{"checkpoint.every_steps=4"},
      twice = kNoLag + Arguments{"grpo.updates_per_rollout=2"};
  int number = 0;
  for (const Life& life : std::vector<Life>{
           {kNoLag, {inside_rollout(0, 0), inside_rollout(5, 0), at_step(9)}, {one, kStages, one, kTwins}},
           {kNoLag + often, {at_checkpoint(1), inside_rollout(6, 0), at_checkpoint(2)}, {kTwins, one, kStages, one}},
           {kLag, {inside_rollout(0, 2), inside_rollout(6, 2)}, {one, one, kStages}},
           {kLag + often, {at_checkpoint(1), inside_rollout(9, 2), at_step(17)}, {one, kTwins, one, one}},
           {twice + Arguments{"checkpoint.every_steps=3"}, {at_checkpoint(1), at_step(12)}, {one, kStages, one}}}) {
    const std::string undisturbed = school.digest_after(life.numbers + forty),
                      name = "life-" + std::to_string(number++);
    for (std::size_t i = 0; i < life.layouts.size(); ++i) {
      const Arguments sets = life.numbers + forty + life.layouts[i];
      INFO(name << ", part " << i << ": " << json(sets).dump());
      const Arguments arguments = i == 0 ? school.train(name, sets) : school.resume(name, sets);
      if (i < life.kills.size())
        kill_at(life.kills[i], static_cast<int>(i) + 1, school.run(name), arguments);
      else
        expect_success(arguments);
    }
    INFO(name);
    CHECK(digest_of(school.run(name)) == undisturbed);
  }
}

// ---- judge.command --------------------------------------------------------------------------------------------------

namespace {

// A few answers, so that a command for each takes no time.
const Arguments kFew{"train.steps=3", "train.batch_sequences=8", "judge.wall_seconds=2", "judge.cpu_seconds=1"};

Arguments judged_by(const std::string& command) { return {"judge.command='''" + command + "'''"}; }

}  // namespace

TEST_CASE("a command may be the judge: an answer is worth what it says", "[reinforcement]") {
  School school;
  const Arguments sets =
      kFew +
      judged_by(
          R"(read -r r; case $r in *response\":\"[0-4]*) echo '{"reward":0.75}';; *) echo '{"reward":0.25}';; esac)");
  expect_success(school.train("judged", sets));
  int high = 0, low = 0;
  for (const json& answer : answers_of(school.run("judged"))) {
    INFO(answer.dump());
    const std::string response = answer.at("response");
    const bool begins_low = !response.empty() && response[0] >= '0' && response[0] <= '4';
    const double said = answer.at("truncated") ? 0 : begins_low ? 0.75 : 0.25;
    CHECK(answer.at("reward") == said);
    ++(begins_low ? high : low);
  }
  CHECK(high > 0);
  CHECK(low > 0);
  CHECK(digest_of(school.run("judged")) == school.digest_after(sets + kTwins));
}

TEST_CASE("a judge that fails every time stops the run with a sentence that names the answer", "[reinforcement]") {
  const School school;
  const Arguments sets = kFew + judged_by("sleep 60") + Arguments{"judge.retries_max=0"};
  const Ended ended = troupe::test::troupe(school.train("stopped", sets));
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  for (const std::string part : {"the judge of answer ", " to prompt ", " of rollout 0 failed 1 times",
                                 "no verdict within 2 s (judge.wall_seconds)", "judge.on_failure = \"zero\""})
    CHECK(has(ended.err, part));
  CHECK(metrics_of(school.run("stopped"), "step").empty());
}

TEST_CASE("a judge that fails every time is worth nothing, when the configuration says so", "[reinforcement]") {
  const School school;
  const Arguments sets = kFew + judged_by("sleep 60") + Arguments{"judge.retries_max=0"};
  const Arguments zero{"judge.on_failure=zero", "judge.processes=8", "train.steps=1"};
  expect_success(school.train("zero", sets + zero));
  int failed = 0;
  for (const json& answer : answers_of(school.run("zero"))) {
    CHECK(answer.at("reward") == 0);
    failed += has(answer.at("detail"), "judge failed") ? 1 : 0;
  }
  CHECK(failed > 0);
}

TEST_CASE(
    "a command that can't be run, ends with a code or says nonsense earns nothing, which the run and its journal tell",
    "[reinforcement]") {
  const School school;
  for (const auto& [command, why] :
       std::vector<std::pair<std::string, std::string>>{{"exit 3", "ended with code 3"},
                                                        {"echo well done", "no verdict: not a JSON object"},
                                                        {"gone-verifier", "code 127: the command can't be run"}}) {
    const std::string name = command.substr(0, 4);
    const Ended ended = expect_success(school.train(name, kFew + judged_by(command) + Arguments{"train.steps=1"}));
    CHECK(has(ended.err, "warning: judge.command failed, which earns 0: "));
    CHECK(has(ended.err, why));
    int told = 0;
    for (const json& answer : answers_of(school.run(name))) {
      CHECK(answer.at("reward") == 0);
      told += has(answer.at("detail"), why) ? 1 : 0;
    }
    CHECK(told > 0);
  }
}
