// Answers to held-out problems as figures: what a table tells, and when two tables may be compared.
#include <nlohmann/json.hpp>

#include "actors/tasks/verify.h"
#include "kernels/base/error.h"
#include "launcher/answers_figures.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;
using nlohmann::json;

namespace {

EvaluatedAnswer answer(const std::string& said, bool correct, std::int64_t tokens, bool truncated = false) {
  return {said, said, correct, !truncated, truncated, correct ? 1.0 : 0.0, tokens};
}

// Two problems with four answers each: 1 and 3 right.
std::vector<EvaluatedProblem> two_problems() {
  return {{"reverse",
           "r12=",
           "21",
           2,
           0,
           {answer("21", true, 3), answer("12", false, 3), answer("12", false, 3), answer("1", false, 9, true)},
           answer("21", true, 3)},
          {"sort",
           "s312=",
           "123",
           3,
           1,
           {answer("123", true, 4), answer("123", true, 4), answer("132", false, 4), answer("123", true, 4)},
           answer("132", false, 4)}};
}

double value(const json& figures, const char* name) { return figures.at(name).at("value"); }
double value(const json& figures, const char* name, const char* k) { return figures.at(name).at(k).at("value"); }

void expect_error(const std::function<void()>& act, const std::vector<std::string>& parts) {
  try {
    act();
    FAIL("nothing was refused");
  } catch (const Error& error) {
    for (const std::string& part : parts) {
      INFO(error.what() << " must say " << part);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
  }
}

}  // namespace

TEST_CASE("figures are means over problems", "[answers]") {
  const json f = figures_of(two_problems(), 1);
  INFO(f.dump(1));
  CHECK(f.at("problems") == 2);
  CHECK(f.at("answers") == 10);
  CHECK(value(f, "accuracy") == Approx(0.5));
  CHECK(value(f, "greedy") == Approx(0.5));
  CHECK(value(f, "reward") == Approx(0.5));
  CHECK(value(f, "truncated") == Approx(1.0 / 8));
  CHECK(value(f, "formatted") == Approx(7.0 / 8));
  CHECK(value(f, "pass", "1") == Approx(0.5));
  CHECK(value(f, "pass", "2") == Approx((0.5 + 1) / 2));  // 1 of 4: half of the pairs; 3 of 4: all
  CHECK(value(f, "pass", "4") == Approx(1));
  CHECK(!f.at("pass").contains("8"));
  CHECK(value(f, "consensus", "1") == Approx(1));
  CHECK(value(f, "consensus", "4") == Approx(0.5));  // 12 wins over 21; an answer without an end has no vote
  CHECK(f.at("length").at("mean").at("value").get<double>() == Approx(34.0 / 8));
  CHECK(f.at("length").at("median").get<double>() == Approx(4));
  CHECK(f.at("length").at("max").get<double>() == Approx(9));
  CHECK(f.at("accuracy").at("low").get<double>() == Approx(0.25));  // both draws the first problem: 1 in 4
  CHECK(f.at("accuracy").at("high").get<double>() == Approx(0.75));
}

TEST_CASE("each task and each level has figures of its own", "[answers]") {
  const json all = figures_by_kind(two_problems(), 1);
  CHECK(value(all.at("by_task").at("reverse"), "accuracy") == Approx(0.25));
  CHECK(value(all.at("by_level").at("sort 3"), "accuracy") == Approx(0.75));
  CHECK(all.at("by_level").size() == 2);
  const std::string table = figures_table(all);
  INFO(table);
  for (const std::string part : {"reverse 2", "sort 3", "all", "50.0 [ 25.0,  75.0]", "pass@4", "cons@4", "p90"})
    CHECK(table.find(part) != std::string::npos);
}

TEST_CASE("where nothing is sampled the greedy answers tell", "[answers]") {
  std::vector<EvaluatedProblem> problems = two_problems();
  for (EvaluatedProblem& p : problems) p.sampled.clear();
  const json f = figures_of(problems, 1);
  CHECK(!f.contains("accuracy"));
  CHECK(!f.contains("pass"));
  CHECK(value(f, "greedy") == Approx(0.5));
  CHECK(value(f, "reward") == Approx(0.5));
  CHECK(figures_table(figures_by_kind(problems, 1)).find("greedy %") != std::string::npos);
  CHECK(figures_of({}, 1).at("problems") == 0);
}

TEST_CASE("a problem that was asked again counts once", "[answers]") {
  std::vector<EvaluatedProblem> problems = two_problems();
  problems.push_back(problems[0]);
  problems.back().index = 2;
  CHECK(without_repeats(problems) == two_problems());
}

TEST_CASE("answers are written and read as they are", "[answers]") {
  const test::Folder folder;
  std::vector<EvaluatedProblem> problems = two_problems();
  problems[1].sampled[2].response = "1\"3\n2\t";
  test::write_file(folder / "answers.jsonl", answers_text(problems));
  CHECK(read_answers(folder / "answers.jsonl") == problems);
  test::write_file(folder / "other.jsonl", answers_text(problems) + "{\"task\":\"sort\"}\n");
  expect_error([&] { read_answers(folder / "other.jsonl"); }, {"other.jsonl:11", "not an evaluated answer"});
  test::write_file(folder / "empty.jsonl", "");
  expect_error([&] { read_answers(folder / "empty.jsonl"); }, {"empty.jsonl", "no answers"});
}

TEST_CASE("the digest of problems is of what they ask, not of how they were answered", "[answers]") {
  std::vector<EvaluatedProblem> problems = two_problems();
  const std::string digest = problems_digest(problems);
  CHECK(digest.size() == 64);
  problems[0].sampled.clear();
  CHECK(problems_digest(problems) == digest);
  problems[0].answer = "22";
  CHECK(problems_digest(problems) != digest);
}

TEST_CASE("two models are compared problem by problem", "[answers]") {
  std::vector<EvaluatedProblem> other = two_problems();
  for (EvaluatedAnswer& a : other[1].sampled) a.correct = false;
  other[1].greedy->correct = true;
  const json c = compare_answers(two_problems(), other, "runs/other", 1);
  INFO(c.dump(1));
  CHECK(value(c, "accuracy") == Approx(0.375));
  CHECK(c.at("accuracy").at("this").get<double>() == Approx(0.5));
  CHECK(c.at("accuracy").at("other").get<double>() == Approx(0.125));
  CHECK(c.at("accuracy").at("better") == 1);
  CHECK(c.at("accuracy").at("p_value") == 1.0);  // one difference: either sign is as likely
  CHECK(value(c, "greedy") == Approx(-0.5));
  CHECK(c.at("greedy").at("worse") == 1);
  CHECK(c.at("problems") == 2);
}

TEST_CASE("models that answered other problems are not compared", "[answers]") {
  std::vector<EvaluatedProblem> other = two_problems();
  other[1].problem = "s321=";
  expect_error([&] { compare_answers(two_problems(), other, "runs/other", 1); },
               {"runs/other answers other problems", "number 2 is \"s321=\"", "\"s312=\" (sort, level 3)", "--seed"});
  other = two_problems();
  other.pop_back();
  expect_error([&] { compare_answers(two_problems(), other, "runs/other", 1); }, {"answers 1 problems, here are 2"});
  other = two_problems();
  for (EvaluatedProblem& p : other) p.sampled.clear();
  expect_error([&] { compare_answers(two_problems(), other, "runs/other", 1); }, {"has 0 sampled answers"});
}

TEST_CASE("what a response says is alike for answers that are the same", "[answers]") {
  const VerifyRules plain, tags{.has_tags = true};
  CHECK(said("reverse", " 321 ", plain) == "321");
  CHECK(said("jsonl", "so it is 1,250.0", plain) == "1250");
  CHECK(said("jsonl", "3 + 4\n#### 7", plain) == "7");
  CHECK(said("jsonl", "no idea", plain) == "");
  CHECK(said("reverse", "<think>a</think><answer> 321</answer>", tags) == "321");
  CHECK(said("reverse", "321", tags) == "");
}
