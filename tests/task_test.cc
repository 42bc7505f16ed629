// Tasks and their verification: every solution is right, no held-out problem is trained on, and no response, however
// hostile, is more than wrong.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/data/corpus.h"
#include "actors/tasks/expression.h"
#include "actors/tasks/task.h"
#include "actors/tasks/task_text.h"
#include "actors/tasks/verify.h"
#include "kernels/base/error.h"

using namespace troupe;
namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kGenerated = {"arithmetic", "reverse", "sort", "countdown"};

TaskConfig config_of(std::vector<std::string> names, int level_min, int level_max, const std::string& form = "plain") {
  TaskConfig config;
  config.names = std::move(names);
  config.level_min = level_min;
  config.level_max = level_max;
  config.operations = "+-*";
  config.form = form;
  return config;
}

VerifyRules rules_of(const TaskConfig& task, double format_reward = 0) {
  return {.has_tags = task.form == "r1", .format_reward = format_reward};
}

Score score(const TaskProblem& problem, const std::string& response, const TaskConfig& task) {
  return verify(problem.task, problem.answer, response, rules_of(task));
}

// What a problem says, whoever asks it: for a plain prompt.
std::string sorted_digits(const std::string& prompt) {
  std::string digits;
  for (const char c : prompt)
    if (c >= '0' && c <= '9') digits += c;
  std::sort(digits.begin(), digits.end());
  return digits;
}
std::string content_of(const TaskProblem& problem) {
  if (problem.task == "reverse" || problem.task == "sort") return sorted_digits(problem.prompt);
  if (problem.task == "countdown") {
    auto json = nlohmann::json::parse(problem.answer);
    auto numbers = json["numbers"].get<std::vector<int>>();
    std::sort(numbers.begin(), numbers.end());
    json["numbers"] = numbers;
    return json.dump();
  }
  const std::size_t sign = problem.prompt.find_first_of("+-*");
  const long long x = std::stoll(problem.prompt), y = std::stoll(problem.prompt.substr(sign + 1));
  return fmt::format("{} {}", std::min(x, y), std::max(x, y));
}

const std::string kAsked = "Think inside <think> </think>, then give the answer inside <answer> </answer>.";

struct Questions {
  std::string path = (fs::temp_directory_path() / "troupe-questions-XXXXXX").string();
  explicit Questions(int count) {
    const int file = ::mkstemp(path.data());
    REQUIRE(file >= 0);
    ::close(file);
    std::ofstream out(path);
    for (int i = 0; i < count; ++i) {
      out << nlohmann::json{{"question", fmt::format("What is {} times 1,000?", i)},
                            {"answer", fmt::format("Let me see.\n{} * 1,000 = {}\n#### ${},000", i, i * 1000, i)}}
          << "\n";
    }
  }
  ~Questions() { fs::remove(path); }
};

}  // namespace

TEST_CASE("a problem is a function of seed, split and index", "[task]") {
  const TaskConfig config = config_of(kGenerated, 2, 4);
  const Tasks tasks(config), again(config);
  for (const Split split : {Split::train, Split::held_out}) {
    for (std::uint64_t i = 0; i < 200; ++i) {
      const TaskProblem problem = tasks.problem(7, split, i), same = again.problem(7, split, i);
      REQUIRE(problem.prompt == same.prompt);
      REQUIRE(problem.solution == same.solution);
      REQUIRE(problem.index == i);
      REQUIRE(problem.task == kGenerated[i % kGenerated.size()]);
      REQUIRE((problem.level >= 2 && problem.level <= 4));
    }
  }
  int changed = 0;
  for (std::uint64_t i = 0; i < 200; ++i)
    if (tasks.problem(8, Split::train, i).prompt != tasks.problem(7, Split::train, i).prompt) ++changed;
  CHECK(changed > 150);
  const std::uint64_t far = ~std::uint64_t{0};
  CHECK(tasks.problem(7, Split::train, far).index == far);
  CHECK(tasks.problem(7, Split::held_out, far).index == far);
}

TEST_CASE("every solution is right, whatever the task, the level and the template", "[task]") {
  for (const std::string form : {"plain", "r1"}) {
    for (const std::string& name : kGenerated) {
      const TaskConfig config = config_of({name}, 1, name == "countdown" ? 6 : 9, form);
      const Tasks tasks(config);
      for (std::uint64_t i = 0; i < 2000; ++i) {
        const TaskProblem problem = tasks.problem(1, i % 4 == 0 ? Split::held_out : Split::train, i);
        const Score given = score(problem, problem.solution, config);
        INFO(problem.prompt << " " << problem.solution << " " << problem.answer << ": " << given.detail);
        REQUIRE(given.correct);
        REQUIRE(given.reward == 1.0);
        REQUIRE(given.formatted);
        REQUIRE(problem.solution.find(kEndOfAnswer) == std::string::npos);
        REQUIRE_FALSE(score(problem, form == "r1" ? problem.answer : problem.solution + "0", config).correct);
        REQUIRE_FALSE(score(problem, "", config).correct);
      }
    }
  }
}

TEST_CASE("plain prompts are a few characters", "[task]") {
  std::set<std::string> seen;
  for (const std::string& name : kGenerated) {
    const int level = name == "reverse" || name == "sort" ? 3 : 2;
    const Tasks tasks(config_of({name}, level, level));
    for (std::uint64_t i = 0; i < 100000; ++i) {
      const TaskProblem problem = tasks.problem(1, i % 256 == 0 ? Split::held_out : Split::train, i);
      seen.insert(problem.prompt + problem.solution);
      REQUIRE(problem.prompt.size() <= 10);
    }
  }
  CHECK(seen.contains("47+85=132"));
  CHECK(seen.contains("85-47=38"));
  CHECK(seen.contains("r472=274"));
  CHECK(seen.contains("s521=125"));
  CHECK((seen.contains("c8,5:40=8*5") || seen.contains("c8,5:40=5*8")));
}

TEST_CASE("no held-out problem is ever trained on, by any seed or level range, and one in sixteen is", "[task]") {
  for (const std::string& name : kGenerated) {
    INFO(name);
    const Tasks narrow(config_of({name}, 3, 3)), wide(config_of({name}, 2, 4));
    std::set<std::string> held_out;
    for (std::uint64_t i = 0; i < 3000; ++i) held_out.insert(content_of(narrow.problem(1, Split::held_out, i)));
    for (std::uint64_t i = 0; i < 3000; ++i) held_out.insert(content_of(wide.problem(3, Split::held_out, i)));
    for (std::uint64_t i = 0; i < 25000; ++i) {
      const std::string content = content_of((i % 2 == 0 ? narrow : wide).problem(5, Split::train, i));
      REQUIRE_FALSE(held_out.contains(content));
    }
  }
  std::int64_t count = 0;
  for (int i = 0; i < 100000; ++i)
    if (is_held_out(fmt::format("problem {}", i))) ++count;
  CHECK(std::abs(count - 100000 / 16) < 400);  // five standard deviations of 77
}

TEST_CASE("held-out problems don't repeat before many of them are used up", "[task]") {
  const auto distinct = [](const TaskConfig& config, std::uint64_t count) {
    const Tasks tasks(config);
    std::set<std::string> seen;
    for (std::uint64_t i = 0; i < count; ++i) seen.insert(tasks.problem(1, Split::held_out, i).prompt);
    return seen.size();
  };
  CHECK(distinct(config_of({"reverse"}, 6, 6), 2000) == 2000);
  CHECK(distinct(config_of({"sort"}, 12, 12), 2000) == 2000);
  CHECK(distinct(config_of({"arithmetic"}, 2, 2), 150) == 150);  // of some 4,995 / 16 pairs
  CHECK(distinct(config_of({"arithmetic"}, 3, 3), 2000) == 2000);
  CHECK(distinct(config_of({"countdown"}, 3, 3), 100) == 100);
  CHECK(distinct(config_of({"reverse"}, 1, 1), 100) >= 1);  // ten strings: one is held out, and asked again
}

TEST_CASE("a share of the training solutions is written wrong, and no answer ever is", "[task]") {
  for (const std::string form : {"plain", "r1"}) {
    TaskConfig config = config_of(kGenerated, 2, 4, form), clean = config;
    config.corrupt = 0.3;
    const Tasks tasks(config), clean_tasks(clean);
    int wrong = 0;
    for (std::uint64_t i = 0; i < 10000; ++i) {
      const TaskProblem problem = tasks.problem(1, Split::train, i), good = clean_tasks.problem(1, Split::train, i);
      REQUIRE(problem.prompt == good.prompt);
      REQUIRE(problem.answer == good.answer);
      const Score given = score(problem, problem.solution, config);
      INFO(problem.prompt << " " << problem.solution << ", clean " << good.solution);
      REQUIRE(given.correct == (problem.solution == good.solution));
      if (!given.correct) ++wrong;
    }
    CHECK(std::abs(wrong - 3000) < 230);  // five standard deviations of 46
    for (std::uint64_t i = 0; i < 1000; ++i) {
      const TaskProblem problem = tasks.problem(1, Split::held_out, i);
      REQUIRE(score(problem, problem.solution, config).correct);
    }
  }
}

TEST_CASE("questions of a file are split by their words, and their answers are numbers", "[task]") {
  const Questions questions(2000);
  TaskConfig config = config_of({"jsonl"}, 1, 3);
  config.files = {questions.path};
  for (const std::string form : {"plain", "r1"}) {
    config.form = form;
    const Tasks tasks(config);
    std::set<std::string> training, held_out;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      const TaskProblem problem = tasks.problem(1, Split::train, i), kept = tasks.problem(2, Split::held_out, i);
      REQUIRE(score(problem, problem.solution, config).correct);
      REQUIRE(problem.solution.find(kEndOfAnswer) == std::string::npos);
      REQUIRE(problem.level == 2);
      REQUIRE(problem.prompt.ends_with(form == "r1" ? "? " + kAsked : "?\n"));
      training.insert(problem.prompt);
      held_out.insert(kept.prompt);
    }
    CHECK(training.size() + held_out.size() == 2000);
    CHECK(held_out.size() > 80);
    CHECK(held_out.size() < 170);
  }
  config.answer_key = "solution";
  CHECK_THROWS_WITH(Tasks(config), Catch::Contains(questions.path + ":1:") && Catch::Contains("task.answer_key"));
}

TEST_CASE("questions that there is no room for are passed over, and no other changes sides for it", "[task]") {
  const Questions questions(500);
  TaskConfig config = config_of({"jsonl"}, 1, 3);
  config.files = {questions.path};
  const auto prompts = [](const Tasks& tasks, Split split) {
    std::set<std::string> all;
    for (std::uint64_t i = 0; i < 500; ++i) all.insert(tasks.problem(1, split, i).prompt);
    return all;
  };
  const Tasks tasks(config);
  const auto fits = [](const TaskProblem& problem) { return std::hash<std::string>()(problem.prompt) % 3 != 0; };
  const Tasks fewer(config, fits);
  std::size_t kept = 0;
  for (const Split split : {Split::train, Split::held_out}) {
    const auto some = prompts(fewer, split);
    auto expected = prompts(tasks, split);
    std::erase_if(expected, [&](const std::string& prompt) { return std::hash<std::string>()(prompt) % 3 == 0; });
    CHECK(some == expected);
    kept += some.size();
  }
  CHECK(fewer.left_out() == static_cast<std::int64_t>(500 - kept));
  CHECK(fewer.left_out() > 100);
  CHECK(tasks.left_out() == 0);
  CHECK_THROWS_WITH(Tasks(config, [](const TaskProblem&) { return false; }), Catch::Contains("500"));
}

TEST_CASE("the last number of an answer counts, however it is written", "[task]") {
  const auto is_right = [](const std::string& known, const std::string& response, bool has_tags = false) {
    return verify("jsonl", known, response, {.has_tags = has_tags}).correct;
  };
  for (const std::string good : {"18", "It is 18.", "#### 18", "9 + 9 = $18.00", "#### 18\n", "018", "18.0 dollars",
                                 "17 or rather 18", "16+2=18", "20-2 = 18"})
    CHECK(is_right("18", good));
  for (const std::string bad : {"", "81", "18 and 19", "-18", "1.8", "eighteen", "18.5", "#### ", "#### 18 #### 19"})
    CHECK_FALSE(is_right("18", bad));
  CHECK(is_right("-3", "so -$3"));
  CHECK(is_right("1250", "1,250"));
  CHECK(is_right("0.5", ".50 or 0.50"));
  CHECK(is_right("18", "<think>19</think><answer>$18</answer>", true));
  CHECK_FALSE(is_right("18", "18", true));
}

TEST_CASE("the countdown checker agrees with the cases written for it", "[task]") {
  std::ifstream in(std::string(TROUPE_SOURCE_DIR) + "/tests/fixtures/countdown/checker_cases.json");
  const auto cases = nlohmann::json::parse(in);
  REQUIRE(cases.size() == 19);
  for (const auto& one : cases) {
    const nlohmann::json answer = {{"numbers", one["numbers"]}, {"target", one["target"]}};
    INFO(one.dump());
    const Score given = verify("countdown", answer.dump(), one["response"].get<std::string>(), {.has_tags = true});
    CHECK(given.reward == one["reward"].get<double>());
    CHECK(given.correct == (given.reward == 1.0));
  }
}

TEST_CASE("in the plain template the whole response is the expression", "[task]") {
  const auto reward = [](const std::string& response) {
    return verify("countdown", R"({"numbers":[8,5],"target":40})", response, {}).reward;
  };
  CHECK(reward("8*5") == 1.0);
  CHECK(reward(" 5 * (8)\n") == 1.0);
  CHECK(reward("8+5") == 0.1);
  CHECK(reward("40") == 0.1);
  CHECK(reward("8*") == 0.0);
  CHECK(reward("") == 0.0);
  CHECK(reward("<answer>8*5</answer>") == 0.0);
}

TEST_CASE("a response in the asked form earns the format reward, each tag once and in order", "[task]") {
  const VerifyRules rules{.has_tags = true, .format_reward = 0.25};
  const auto reward = [&](const std::string& response) { return verify("reverse", "21", response, rules).reward; };
  CHECK(reward("<think>12</think><answer>21</answer>") == 1.25);
  CHECK(reward(" <think></think>\n<answer> 21 </answer>\n") == 1.25);
  CHECK(reward("<think>12</think><answer>12</answer>") == 0.25);
  for (const std::string loose :
       {"<answer>21</answer>", "<think></think>so<answer>21</answer>", "<think><think></think><answer>21</answer>",
        "<think></think><answer>21</answer>.", "<answer>1</answer><think></think><answer>21</answer>",
        "<think><answer>21</answer></think>", "</think><think><answer>21</answer>"}) {
    INFO(loose);
    CHECK(reward(loose) == 1.0);
  }
  CHECK(reward("<think></think><answer>21") == 0.0);
}

TEST_CASE("hostile responses are wrong, in bounded time", "[task]") {
  const std::size_t huge = 10'000'000;
  std::string tags, pairs;
  while (tags.size() < huge) tags += "<answer>";
  while (pairs.size() < huge) pairs += "<answer></answer><think>";
  const std::vector<std::string> responses = {std::string(huge, '('),
                                              std::string(huge, '9'),
                                              std::string(huge, ','),
                                              std::string(huge, '\0'),
                                              std::string(huge, ' '),
                                              tags,
                                              pairs,
                                              "8*5" + std::string(1, '\0'),
                                              std::string("\xff\xfe") + "8*5",
                                              "10**9",
                                              "9**9**9**9",
                                              "8/0*5",
                                              "0x28",
                                              "__import__('os').system('true')",
                                              "1e400",
                                              std::string(100, '(') + "8*5" + std::string(100, ')'),
                                              "99999999999999999999999999",
                                              "8*5;",
                                              "8*5#"};
  const std::map<std::string, std::string> answers = {
      {"countdown", R"({"numbers":[8,5],"target":40})"}, {"sort", "58"}, {"jsonl", "40"}, {"nothing", "40"}};
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& response : responses) {
    for (const auto& [task, answer] : answers) {
      for (const bool has_tags : {false, true}) {
        for (const std::string& given : {response, "<think></think><answer>" + response + "</answer>"}) {
          const Score got = verify(task, answer, given, {.has_tags = has_tags});
          INFO(task << " " << given.substr(0, 60));
          REQUIRE_FALSE(got.correct);
          REQUIRE(got.reward <= 0.1);
          Score read;
          REQUIRE(read_verdict(verdict_line(got), read).empty());
          REQUIRE(read == got);
        }
      }
    }
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));  // 224 verdicts, 7 of 10 MB each
}

TEST_CASE("values beyond 127 bits are a problem, and others exact", "[task]") {
  std::string product = "4000000000000000000";
  CHECK(evaluate_expression(product + "*" + product + "/" + product).value == 4000000000000000000);
  for (int i = 0; i < 3; ++i) product += "*4000000000000000000";
  CHECK(evaluate_expression(product).problem == "the value is too large");
  CHECK(evaluate_expression("1/3+1/6+1/2").value == 1);
  CHECK_FALSE(evaluate_expression("1/3").is_whole);
  CHECK_FALSE(evaluate_expression("1-2").is_whole);
  CHECK(evaluate_expression("2-(3-4)").value == 3);
  CHECK(evaluate_expression("2+").problem == "a number is missing");
}

TEST_CASE("a request survives its line, whatever bytes the response has", "[task]") {
  const TaskProblem problem{.task = "reverse", .prompt = "r12=", .solution = "21", .answer = "21", .level = 2};
  CHECK(verdict_on(request_line(problem, "21"), {}) ==
        R"({"correct":true,"detail":"right","formatted":true,"reward":1.0})");
  for (const std::string& response : {std::string("2\n1"), std::string("\xff\xc3"), std::string(1, '\0')}) {
    const std::string line = request_line(problem, response);
    CHECK(line.find('\n') == std::string::npos);
    CHECK_THAT(verdict_on(line, {}), Catch::Contains("\"reward\":0.0"));
  }
  CHECK_THAT(verdict_on("{", {}), Catch::Contains("not a JSON object"));
  Score score;
  CHECK(read_verdict(R"({"reward":0.5})", score).empty());
  CHECK((score.reward == 0.5 && !score.correct && score.detail.empty()));
  for (const std::string bad : {"", "[]", "{}", R"({"reward":"1"})", R"({"reward":1e999})", "{\"reward\":1"})
    CHECK_FALSE(read_verdict(bad, score).empty());
}

TEST_CASE("solutions are learned from whole and apart, prompts are not targets", "[task]") {
  Config config;
  config.data.kind = "task";
  config.task = config_of({"reverse", "countdown"}, 2, 3);
  config.train.sequence_length = 64;
  config.train.batch_sequences = config.train.microbatches = 2;
  const auto corpus = open_corpus(config);
  const Batch batch = corpus->train(3, 1);
  std::string text(batch.ids.begin(), batch.ids.end()), learned;
  for (const std::int32_t target : batch.targets)
    if (target != kNoTarget) learned += static_cast<char>(target);
  const Tasks tasks(config.task);
  std::string expected, answers;
  for (std::uint64_t i = std::uint64_t{7} * 64;; ++i) {
    const TaskProblem problem = tasks.problem(config.train.seed, Split::train, i);
    const std::string whole = problem.prompt + problem.solution + kEndOfAnswer;
    if (expected.size() + whole.size() > 64) break;
    expected += whole;
    answers += problem.solution + kEndOfAnswer;
  }
  CHECK(text.substr(0, expected.size()) == expected);
  CHECK(learned == answers);
  CHECK(std::count(batch.positions.begin(), batch.positions.end(), 0) > 3);
  CHECK(corpus->held_out_microbatches(0) > 10);
  CHECK(corpus->held_out(0).target_count() > 0);
  config.train.sequence_length = 4;
  CHECK_THROWS_WITH(open_corpus(config), Catch::Contains("train.sequence_length is 4"));
}

TEST_CASE("a task's tokenizer must fit the model, and stands among what was learned from", "[task]") {
  Config config;
  config.data.kind = "task";
  config.task = config_of({"reverse"}, 2, 3);
  config.data.tokenizer = TROUPE_SOURCE_DIR "/tests/fixtures/tokenizer/qwen2style_2k";
  config.model.vocab_size = 2050;
  CHECK_THROWS_WITH(TaskText(config), Catch::Contains("model.vocab_size is 2050, must be 2051 or more"));
  CHECK_THROWS_WITH(open_corpus(config), Catch::Contains("model.vocab_size is 2050, must be 2051 or more"));
  config.model.vocab_size = 2051;
  const auto corpus = open_corpus(config);
  REQUIRE(corpus->provenance().size() == 2);
  CHECK(corpus->provenance()[1].source == config.data.tokenizer + "/tokenizer.json");
  const std::size_t with_tokenizer = corpus->bytes();
  config.data.tokenizer = "bytes";
  config.model.vocab_size = 128;  // what is written in ASCII needs no more
  const auto bytes = open_corpus(config);
  CHECK(bytes->provenance().size() == 1);
  CHECK(with_tokenizer > bytes->bytes() + 2051 * sizeof(std::string));
}

TEST_CASE("a level without problems is told with what to change", "[task]") {
  TaskConfig config = config_of({"countdown"}, 2, 2);
  config.number_max = 2;
  config.target_max = 1;
  CHECK_THROWS_WITH(Tasks(config), Catch::Contains("task countdown of level 2 has no problems") &&
                                       Catch::Contains("raise task.number_max or task.target_max"));
}

TEST_CASE("room for answers is kept only where they are asked for", "[task]") {
  Config config;
  config.task = config_of({"reverse"}, 2, 3);
  config.train.sequence_length = 64;
  config.grpo.completion_max = 40;
  const TaskProblem problem{
      .task = "reverse", .prompt = std::string(30, 'r'), .solution = {}, .answer = {}, .level = 1};
  config.kind = "sft";
  CHECK(TaskText(config).has_room(problem));
  config.evaluate.problems = 8;
  CHECK_FALSE(TaskText(config).has_room(problem));
  config.evaluate.problems = 0;
  config.kind = "grpo";
  CHECK_FALSE(TaskText(config).has_room(problem));
}

TEST_CASE("what a sequence has no room for is noted with the data", "[task]") {
  Config config;
  config.data.kind = "task";
  config.task = config_of({"reverse", "countdown"}, 2, 6);
  config.train.sequence_length = 64;
  CHECK(open_corpus(config)->provenance()[0].note.empty());
  config.train.sequence_length = 24;
  CHECK_THAT(open_corpus(config)->provenance()[0].note,
             Catch::StartsWith("problems longer than 24 tokens left out, ") &&
                 Catch::EndsWith(" of the first 512 held-out ones"));
  const Questions questions(2000);
  for (int i = 0; i < 7; ++i)
    std::ofstream(questions.path, std::ios::app)
        << R"({"question": ")" << std::string(200, 'x') << R"(", "answer": "1"})"
        << "\n";
  config.task = config_of({"jsonl"}, 1, 3);
  config.task.files = {questions.path};
  config.train.sequence_length = 128;
  CHECK(open_corpus(config)->provenance()[0].note ==
        "7 questions of task.files left out: a sequence has no room for them");
}
