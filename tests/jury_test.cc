// The jury: every request has an outcome, whatever the judges and their commands do, and nothing of a command stays.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "actors/sim_jury.h"
#include "actors/tasks/task.h"
#include "actors/tasks/verify.h"
#include "launcher/confined_command.h"
#include "launcher/jury.h"

using namespace troupe;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

struct Scratch {
  std::string path = (fs::temp_directory_path() / "troupe-jury-test-XXXXXX").string();
  Scratch() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    fs::permissions(path, fs::perms::all);  // whoever a command is, it could write here
  }
  ~Scratch() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

JuryOptions options_of(const std::string& command) {
  JuryOptions options;
  options.program = TROUPE_BINARY;
  options.judge.command = command;
  options.judge.cpu_seconds = 1;
  options.judge.memory_mib = 128;
  options.judge.file_mib = 1;
  options.judge.processes_max = 16;
  return options;
}

TaskProblem problem_of(const std::string& prompt = "r12=") {
  return {.task = "reverse", .prompt = prompt, .solution = "21", .answer = "21", .level = 2, .index = 0};
}

// The outcomes of so many requests, waited for as the loop does.
std::vector<JuryOutcome> outcomes_of(Jury& jury, std::size_t count) {
  std::vector<JuryOutcome> outcomes;
  while (outcomes.size() < count) {
    pollfd descriptor{.fd = jury.outcome_fd(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&descriptor, 1, 60'000) == 1);
    jury.take_outcomes(outcomes);
  }
  REQUIRE(outcomes.size() == count);
  CHECK(jury.jobs() == 0);
  return outcomes;
}

JuryOutcome judged(Jury& jury, const std::string& response = "21", const std::string& prompt = "r12=") {
  jury.submit(1, 2, request_line(problem_of(prompt), response));
  return outcomes_of(jury, 1)[0];
}

Score score_of(const JuryOutcome& outcome) {
  INFO(outcome.problem << outcome.verdict);
  Score score;
  REQUIRE(outcome.problem.empty());
  REQUIRE(read_verdict(outcome.verdict, score).empty());
  return score;
}

std::string long_text(std::size_t size) {
  std::string text;
  text.resize(size, '(');
  return text;
}

// To sleep so long is what only this process has commands do: they are looked for on the whole machine.
std::string sleep_of(const std::string& seconds) { return fmt::format("sleep {}{:07}", seconds, ::getpid()); }

// What a command is judged to be worth.
Score score_by(const std::string& command) {
  const auto jury = make_process_jury(options_of(command));
  return score_of(judged(*jury));
}

std::vector<pid_t> children() {
  std::vector<pid_t> all;
  for (const auto& task : fs::directory_iterator("/proc/self/task")) {
    std::ifstream list(task.path() / "children");
    for (pid_t pid = 0; list >> pid;) all.push_back(pid);
  }
  return all;
}
pid_t only_child() {
  for (int tries = 0; tries < 1000; ++tries) {
    if (const auto all = children(); all.size() == 1) return all[0];
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  FAIL("there is no judge, or more than one");
  return -1;
}

// "" of a process that is gone.
std::string command_line(const fs::path& process) {
  std::ostringstream text;
  text << std::ifstream(process / "cmdline", std::ios::binary).rdbuf();
  std::string line = text.str();
  std::replace(line.begin(), line.end(), '\0', ' ');
  return line;
}

// A process anywhere whose command line has these words.
bool is_running(const std::string& words) {
  std::error_code failed;
  for (const auto& process : fs::directory_iterator("/proc", failed)) {
    const std::string line = command_line(process.path());
    if (line.find(words) != std::string::npos) return true;
  }
  return false;
}
// Becomes so, soon.
bool soon(const std::function<bool()>& holds) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

bool has_namespaces() {
  const Scratch scratch;
  return ConfinedCommand(options_of("").judge, scratch.path).probe().empty();
}

const std::string kRight = R"(echo '{"reward":1}')";
// Sleeps over prompts with "slow" in them.
std::string slow_command(const std::string& sleeps) {
  return "read request; case $request in *slow*) " + sleeps + ";; esac; " + kRight;
}

}  // namespace

TEST_CASE("built-in verdicts of other processes are those of verify()", "[jury]") {
  const auto jury = make_process_jury({.judge = {}, .rules = {}, .program = TROUPE_BINARY});
  constexpr std::size_t kCount = 10'000;
  TaskConfig config;
  config.names = {"arithmetic", "reverse", "sort", "countdown"};
  const Tasks tasks(config);
  std::vector<std::string> requests;
  for (std::size_t i = 0; i < kCount; ++i) {
    const TaskProblem problem = tasks.problem(1, Split::train, i);
    requests.push_back(request_line(problem, i % 3 == 0 ? problem.solution : "12"));
  }
  CHECK(score_of(judged(*jury)).correct);
  const auto begin = Clock::now();
  for (std::size_t i = 0; i < kCount; ++i) jury->submit(static_cast<std::uint32_t>(i % 7), i, requests[i]);
  const auto outcomes = outcomes_of(*jury, kCount);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  WARN("10,000 verdicts by 2 judges in " << seconds << " s, " << kCount / seconds << " a second");
  std::set<std::uint64_t> tokens;
  for (const JuryOutcome& outcome : outcomes) {
    REQUIRE(outcome.actor == outcome.token % 7);
    REQUIRE(outcome.verdict == verdict_on(requests[outcome.token], {}));
    tokens.insert(outcome.token);
  }
  CHECK(tokens.size() == kCount);
}

TEST_CASE("a request of many megabytes is judged", "[jury]") {
  const auto jury = make_process_jury({.judge = {}, .rules = {}, .program = TROUPE_BINARY});
  CHECK_FALSE(score_of(judged(*jury, long_text(20'000'000))).correct);
  CHECK(score_of(judged(*jury)).correct);
}

TEST_CASE("a command gets the request and gives the verdict", "[jury]") {
  const auto jury = make_process_jury(options_of(
      R"(read request; case $request in *'"response":"21"'*) echo '{"reward":0.75,"detail":"well done"}';; *) echo '{"reward":-1}';; esac)"));
  const Score good = score_of(judged(*jury, "21"));
  CHECK((good.reward == 0.75 && !good.correct && good.detail == "well done"));
  CHECK(score_of(judged(*jury, "12")).reward == -1.0);
}

TEST_CASE("a command that fails earns nothing, and the verdict says why", "[jury]") {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"while :; do :; done", "over its CPU limit of 1 s"},
      {"trap '' TERM INT HUP XCPU; while :; do :; done", "over its CPU limit of 1 s"},
      {"while :; do echo endless output; done", "more than 64 KiB of output"},
      {"tail /dev/zero; exit $?", "ended with code 1"},  // keeps all of an endless line in memory
      {"head -c 2000000 /dev/zero > big; exit $?", "killed by signal 25"},
      {"kill -SEGV $$", "killed by signal 11"},
      {"exit 3", "ended with code 3"},
      {"no-such-program-here", "code 127: the command can't be run"},
      {"echo right", "is no verdict: not a JSON object"},
      {"echo '{\"reward\":\"1\"}'", "is no verdict: no number"},
      {kRight + ";" + kRight, "is no verdict: more than one line"},
      {"exit 0", "is no verdict: not a JSON object"}};
  for (const auto& [command, detail] : table) {
    INFO(command);
    const Score score = score_by(command);
    CHECK(score.reward == 0.0);
    CHECK_THAT(score.detail, Catch::Contains(detail));
  }
}

TEST_CASE("a broken command is noted once, and what an answer may do to a sound one is not", "[jury]") {
  const auto notes_after_two = [](const std::string& command) {
    const Scratch scratch;
    ::signal(SIGPIPE, SIG_IGN);  // as a judge does: a command need not read its request
    ConfinedCommand confined(options_of(command).judge, scratch.path);
    std::vector<std::string> notes;
    for (int i = 0; i < 2; ++i) {
      confined.verdict_on(request_line(problem_of(), "21"));
      if (const std::string note = confined.take_note(); !note.empty()) notes.push_back(note);
    }
    return notes;
  };
  for (const std::string broken : {"exit 3", "no-such-program-here", "exit 0", "echo right"}) {
    INFO(broken);
    const std::vector<std::string> notes = notes_after_two(broken);
    REQUIRE(notes.size() == 1);
    CHECK_THAT(notes[0], Catch::StartsWith("judge.command failed, which earns 0: "));
  }
  for (const std::string& sound :
       {kRight, std::string("kill -SEGV $$"), std::string("while :; do echo endless; done")}) {
    INFO(sound);
    CHECK(notes_after_two(sound).empty());
  }
}

TEST_CASE("a fork bomb is kept small and is gone afterwards", "[jury]") {
  const std::string name = fmt::format("fork-bomb-{}", ::getpid());
  const auto jury = make_process_jury(
      options_of("bomb() { " + sleep_of("68.") + " & bomb | bomb & }; : " + name + "; bomb; sleep 1; " + kRight));
  jury->submit(1, 2, request_line(problem_of(), "21"));
  std::size_t most = 0;
  std::vector<JuryOutcome> outcomes;
  for (int turns = 0; outcomes.empty() && turns < 3000; ++turns) {
    std::size_t count = 0;
    std::error_code failed;
    for (const auto& process : fs::directory_iterator("/proc", failed)) {
      const std::string line = command_line(process.path());
      if (line.find(name) != std::string::npos || line.find(sleep_of("68.")) != std::string::npos) ++count;
    }
    most = std::max(most, count);
    jury->take_outcomes(outcomes);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  REQUIRE(outcomes.size() == 1);
  CHECK(outcomes[0].problem.empty());
  CHECK(most >= 2);
  CHECK(most <= 17);  // processes_max, and the judge's own copy
  CHECK(soon([&] { return !is_running(sleep_of("68.")) && !is_running(name); }));
  CHECK(judged(*jury).problem.empty());
}

TEST_CASE("a command is alone with its request: no descriptors, no environment, an empty folder", "[jury]") {
  const std::string inherited = "TROUPE_JURY_TEST=secret";
  ::putenv(const_cast<char*>(inherited.c_str()));
  const int descriptor = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  REQUIRE(descriptor >= 3);
  const Score score = score_by(
      "i=3; d=none; while [ $i -lt 300 ]; do [ -e /proc/$$/fd/$i ] && d=$i; i=$((i+1)); done; n=$(ls | wc -l); "
      "v=$(env | cut -d= -f1 | sort | tr '\\n' ' '); "
      "printf '{\"reward\":1,\"detail\":\"files %s descriptors %s variables %s folder %s\"}\\n' $n $d \"$v\" $PWD");
  ::close(descriptor);
  ::unsetenv("TROUPE_JURY_TEST");
  INFO(score.detail);
  CHECK_THAT(score.detail, Catch::Contains("files 0 "));
  CHECK_THAT(score.detail, Catch::Contains("descriptors none "));
  CHECK(score.detail.find("TROUPE") == std::string::npos);
  const std::string names = score.detail.substr(score.detail.find("variables ") + 10);
  std::istringstream words(names.substr(0, names.find("folder")));
  for (std::string word; words >> word;) CHECK((word == "PATH" || word == "PWD" || word == "SHLVL" || word == "_"));
  CHECK_FALSE(fs::exists(score.detail.substr(score.detail.find("folder ") + 7)));
}

TEST_CASE("what a command leaves running is killed when it has answered", "[jury]") {
  const std::string left = sleep_of("63.");
  const auto jury = make_process_jury(options_of(left + " & (trap '' TERM HUP; setsid " + left + " &) ; " + kRight));
  CHECK(score_of(judged(*jury)).reward == 1.0);
  CHECK(soon([&] { return !is_running(left); }));  // while the judge lives
}

TEST_CASE("a command writes nowhere but in its folder and has no network, where the kernel grants namespaces",
          "[jury]") {
  if (!has_namespaces()) {
    WARN("this machine grants no namespaces");
    return;
  }
  const Scratch scratch;
  const std::string target = scratch / "outside";
  CHECK(score_by("echo inside > file && cat file > copy && " + kRight).reward == 1.0);
  CHECK(score_by("echo outside > " + target + " && " + kRight).reward == 0.0);
  CHECK_FALSE(fs::exists(target));
  CHECK(
      score_by("i=0; while head -c 400000 /dev/zero > file$i; do i=$((i+1)); done; [ $i -le 3 ] && " + kRight).reward ==
      1.0);  // file_mib holds for all files together
  CHECK(score_by("[ $(wc -l < /proc/net/dev) -eq 3 ] && " + kRight).reward == 1.0);  // two lines of titles, and lo
  CHECK(score_by("[ $(ls -d /proc/[0-9]* | wc -l) -le 8 ] && " + kRight).reward == 1.0);
  CHECK(score_by("kill -9 1; kill -9 $PPID; " + kRight).reward == 1.0);
  if (std::system("test -x /usr/bin/python3") != 0) {
    WARN("without python3 no socket was tried");
    return;
  }
  CHECK(score_by("/usr/bin/python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 1), 2)' 2>&1 | "
                 "grep -q unreachable && " +
                 kRight)
            .reward == 1.0);
}

TEST_CASE("a judge that is killed is missed, and another one judges", "[jury]") {
  JuryOptions options = options_of(slow_command(sleep_of("62.")));
  options.judge.processes = 1;
  const auto jury = make_process_jury(options);
  jury->submit(3, 4, request_line(problem_of("slow"), "21"));
  REQUIRE(soon([] { return is_running(sleep_of("62.")); }));
  REQUIRE(::kill(only_child(), SIGKILL) == 0);
  const JuryOutcome outcome = outcomes_of(*jury, 1)[0];
  CHECK((outcome.actor == 3 && outcome.token == 4 && outcome.verdict.empty()));
  CHECK(outcome.problem == "the judge died (killed by signal 9 (Killed))");
  CHECK(soon([] { return !is_running(sleep_of("62.")); }));
  CHECK(score_of(judged(*jury)).reward == 1.0);
}

TEST_CASE("a judge that is stopped, or whose command sleeps, counts as hung when its time is over", "[jury]") {
  JuryOptions options = options_of(slow_command(sleep_of("64.")));
  options.judge.processes = 1;
  options.judge.wall_seconds = 3;
  const auto jury = make_process_jury(options);
  CHECK(judged(*jury, "21", "slow").problem == "the judge hung: no verdict within 3 s (judge.wall_seconds)");
  CHECK(soon([] { return !is_running(sleep_of("64.")); }));
  CHECK(score_of(judged(*jury)).reward == 1.0);
  REQUIRE(::kill(only_child(), SIGSTOP) == 0);
  CHECK_THAT(judged(*jury).problem, Catch::Contains("hung"));
  CHECK(score_of(judged(*jury)).reward == 1.0);
}

TEST_CASE("requests behind a slow one don't wait for it", "[jury]") {
  JuryOptions options = options_of(slow_command(sleep_of("66.")));
  const auto jury = make_process_jury(options);
  jury->submit(0, 0, request_line(problem_of("slow"), "21"));
  for (std::uint64_t i = 1; i <= 5; ++i) jury->submit(0, i, request_line(problem_of(), "21"));
  std::vector<JuryOutcome> outcomes;
  CHECK(soon([&] { return jury->take_outcomes(outcomes), outcomes.size() == 5; }));
  CHECK(jury->jobs() == 1);
}

TEST_CASE("judges and their commands die with who started them", "[jury]") {
  const Scratch scratch;  // nobody is left to remove the judges' folders
  const std::string sleeps = sleep_of("67.");
  const pid_t parent = ::fork();
  if (parent == 0) {
    ::setenv("TMPDIR", scratch.path.c_str(), 1);
    const auto jury = make_process_jury(options_of(slow_command(sleeps)));
    jury->submit(0, 0, request_line(problem_of("slow"), "21"));
    ::pause();
    ::_exit(0);
  }
  REQUIRE(parent > 0);
  CHECK(soon([&] { return is_running(sleeps); }));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  CHECK(soon([&] { return !is_running(sleeps); }));
}

TEST_CASE("a jury that ends leaves no judge behind", "[jury]") {
  {
    const auto jury = make_process_jury(options_of(slow_command(sleep_of("69."))));
    for (std::uint64_t i = 0; i < 4; ++i) jury->submit(0, i, request_line(problem_of("slow"), "21"));
    CHECK(soon([] { return is_running(sleep_of("69.")); }));
  }
  CHECK(children().empty());
  CHECK(soon([] { return !is_running(sleep_of("69.")); }));
}

TEST_CASE("a program that is no judge is a problem of every request, not of the jury", "[jury]") {
  JuryOptions options = options_of("");
  for (const auto& [program, problem] :
       std::map<std::string, std::string>{{"/no/such/program", "the judge did not start: can't start /no/such/program"},
                                          {"/bin/false", "the judge died (ended with code 1)"}}) {
    options.program = program;
    const auto jury = make_process_jury(options);
    for (int i = 0; i < 3; ++i) CHECK_THAT(judged(*jury).problem, Catch::Contains(problem));
  }
}

TEST_CASE("without namespaces the limits hold, and nothing stays running either", "[jury]") {
  if (!has_namespaces()) {
    WARN("this machine grants no namespaces: all the other cases are this one");
    return;
  }
  const Scratch scratch;
  const std::string program = scratch / "troupe";
  std::ofstream(program) << "#!/bin/sh\nexec unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && exec "
                         << TROUPE_BINARY << " judge'\n";
  fs::permissions(program, fs::perms::owner_all);
  const auto jury_of = [&](const std::string& command) {
    JuryOptions options = options_of(command);
    options.program = program;
    return make_process_jury(options);
  };
  const auto score = [&](const std::string& command) { return score_of(judged(*jury_of(command))); };
  CHECK(score("[ $(ls | wc -l) -eq 0 ] && echo inside > file && [ $(wc -l < /proc/net/dev) -ge 3 ] && " + kRight)
            .reward == 1.0);
  CHECK(score("while :; do :; done").detail == "over its CPU limit of 1 s");
  const auto jury = jury_of(sleep_of("65.") + " & (setsid " + sleep_of("65.") + " &) ; " + kRight);
  CHECK(score_of(judged(*jury)).reward == 1.0);
  CHECK(soon([] { return !is_running(sleep_of("65.")); }));  // while the judge lives
}

// ---- In virtual time --------------------------------------------------------------------------------------------------

namespace {

// Every outcome with the time at which it came.
std::vector<std::pair<std::int64_t, JuryOutcome>> simulated(const SimJuryOptions& options, int count) {
  SimJury jury(options);
  for (int i = 0; i < count; ++i)
    jury.submit(5, static_cast<std::uint64_t>(i), request_line(problem_of(), i % 2 == 0 ? "21" : "12"));
  std::vector<std::pair<std::int64_t, JuryOutcome>> all;
  for (std::int64_t now_us = 1000; jury.jobs() > 0; now_us = std::max(now_us, jury.next_us())) {
    jury.advance(now_us);
    std::vector<JuryOutcome> outcomes;
    jury.take_outcomes(outcomes);
    for (JuryOutcome& outcome : outcomes) all.emplace_back(now_us, std::move(outcome));
  }
  return all;
}

}  // namespace

TEST_CASE("a simulated jury decides as a real one, in the time that its seed draws", "[jury]") {
  const SimJuryOptions options{.seed = 3, .processes = 2, .delay_us_min = 100, .delay_us_max = 300, .rules = {}};
  const auto all = simulated(options, 1000), again = simulated(options, 1000);
  REQUIRE(all.size() == 1000);
  std::set<std::uint64_t> tokens;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& [at_us, outcome] = all[i];
    REQUIRE((again[i].first == at_us && again[i].second.token == outcome.token));
    REQUIRE(score_of(outcome).correct == (outcome.token % 2 == 0));
    tokens.insert(outcome.token);
  }
  CHECK(tokens.size() == 1000);
  CHECK(all.back().first > 1000 + 1000 / 2 * 180);  // two at a time, 200 us each in the mean
  CHECK(all.back().first < 1000 + 1000 / 2 * 220);
}

TEST_CASE("simulated judges die and hang as often as they are told to", "[jury]") {
  const SimJuryOptions options{
      .seed = 4, .processes = 4, .death_chance = 0.1, .hang_chance = 0.05, .deadline_us = 5000, .rules = {}};
  int died = 0, hung = 0;
  for (const auto& [at_us, outcome] : simulated(options, 2000)) {
    CHECK(outcome.problem.empty() != outcome.verdict.empty());
    if (outcome.problem.find("died") != std::string::npos) ++died;
    if (outcome.problem.find("hung") != std::string::npos) ++hung;
  }
  CHECK(std::abs(died - 200) < 70);  // five standard deviations of 13.4
  CHECK(std::abs(hung - 90) < 50);
  const SimJuryOptions slow{.delay_us_min = 900, .delay_us_max = 900, .deadline_us = 500, .rules = {}};
  const auto all = simulated(slow, 1);
  CHECK((all[0].first == 1500 && all[0].second.problem == "the judge hung (simulated)"));
}
