// Evaluation problems in training text: found where they are, and nowhere else.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/random.h"
#include "launcher/contamination.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;
using nlohmann::json;

namespace {

TaskProblem problem(const std::string& prompt, const std::string& solution) {
  TaskProblem p;
  p.task = "jsonl";
  p.prompt = prompt;
  p.solution = solution;
  return p;
}

const std::vector<TaskProblem>& farms() {
  static const std::vector<TaskProblem> all{
      problem("A farmer has twelve hens and each hen lays two eggs a day. How many eggs?\n", "12 * 2 = 24 #### 24"),
      problem("A baker sells forty loaves before noon and half as many after noon. How many loaves?\n",
              "40 + 20 #### 60"),
      problem("Two trains leave the same town at nine in the morning. When do they meet?\n", "at noon #### 12")};
  return all;
}

std::string noise(int words) {
  std::string text;
  for (int i = 0; i < words; ++i)
    text += "w" + std::to_string(random_below(5000, 7, static_cast<std::uint64_t>(i))) + (i % 12 == 11 ? "\n" : " ");
  return text;
}

}  // namespace

TEST_CASE("a problem that stands in a text is found, with its line, however it is written", "[contamination]") {
  const test::Folder folder;
  const std::string file = folder / "train.txt";
  test::write_file(
      file, noise(24) + "HE SAID: \"a farmer has twelve hens, and each hen\n   lays two eggs a day!\" " + noise(50));
  const json report = contamination(farms(), {file}, 10);
  INFO(report.dump(1));
  CHECK(report.at("touched") == 1);
  CHECK(report.at("problems") == 3);
  REQUIRE(report.at("worst").size() == 1);
  const json& worst = report.at("worst")[0];
  CHECK(worst.at("problem") == farms()[0].prompt);
  CHECK(worst.at("shared") == 4);  // words 1..10 to 4..13
  CHECK(worst.at("of") == 14);     // of 16 words of the question and 7 of the solution
  CHECK(worst.at("line") == 4);    // where the run ends
  CHECK(worst.at("words") == "A farmer has twelve hens and each hen lays two");
  CHECK(report.at("files")[0].at("matches") == 4);
  CHECK(contamination_text(report).find("1 of 3 problems (33.3 %) share 10 words") != std::string::npos);
}

TEST_CASE("nine words in a row are no match of ten, and lines of JSON don't run into one another", "[contamination]") {
  const test::Folder folder;
  test::write_file(folder / "nine.txt", "a farmer has twelve hens and each hen lays eggs");
  test::write_file(folder / "apart.jsonl",
                   "{\"text\":\"A farmer has twelve hens and each\"}\n{\"text\":\"hen lays two eggs a day\"}\n");
  CHECK(contamination(farms(), {folder / "nine.txt", folder / "apart.jsonl"}, 10).at("touched") == 0);
  CHECK(contamination(farms(), {folder / "nine.txt"}, 9).at("touched") == 1);
  test::write_file(folder / "fields.jsonl",
                   "\n{\"id\":7,\"parts\":[\"A farmer has twelve hens\",{\"then\":\"and each hen lays two\"}]}\n");
  const json report = contamination(farms(), {folder / "fields.jsonl"}, 10);
  CHECK(report.at("touched") == 1);
  CHECK(report.at("worst")[0].at("line") == 2);
}

TEST_CASE("a short problem is looked for as a whole, with its solution and without it", "[contamination]") {
  const test::Folder folder;
  const std::vector<TaskProblem> short_ones{problem("r4443=", "3444"), problem("r1234=", "4321"),
                                            problem("8 5 40=", "8*5"), problem("9 9 81=", "9*9")};
  test::write_file(folder / "train.txt", "r4443=3444\nr12345=54321\n8 5 40=8*5\n5 40=8*5\n");
  json report = contamination(short_ones, {folder / "train.txt"}, 10);
  INFO(report.dump(1));
  CHECK(report.at("short") == 4);
  CHECK(report.at("touched") == 2);
  test::write_file(folder / "train.jsonl", "{\"question\":\"r1234=\",\"answer\":\"4321\"}\n");
  report = contamination(short_ones, {folder / "train.jsonl"}, 10);
  CHECK(report.at("touched") == 1);
  CHECK(report.at("worst")[0].at("problem") == "r1234=");
}

TEST_CASE("the words of a template count for no problem", "[contamination]") {
  const test::Folder folder;
  std::vector<TaskProblem> all;
  for (int i = 0; i < 40; ++i)
    all.push_back(problem("Reverse " + std::to_string(1000 + i) +
                              " please. Think inside the first tags, then give the answer inside the second tags.",
                          "x"));
  test::write_file(folder / "train.txt",
                   "Reverse 77 please. Think inside the first tags, then give the answer inside the second tags.");
  json report = contamination(all, {folder / "train.txt"}, 10);
  CHECK(report.at("touched") == 0);
  CHECK(report.at("runs_ignored").get<int>() > 0);
  test::write_file(folder / "train.txt", all[7].prompt);
  report = contamination(all, {folder / "train.txt"}, 10);
  CHECK(report.at("touched") == 1);
}

TEST_CASE("every run of a long text is seen, wherever it begins", "[contamination]") {
  const test::Folder folder;
  const std::string text = noise(5000);
  std::vector<TaskProblem> all;
  for (std::size_t at = 0; at + 200 < text.size(); at += 997) {
    const std::size_t begin = text.find_first_of(" \n", at) + 1;
    all.push_back(problem(text.substr(begin, text.find_first_of(" \n", begin + 150) - begin), ""));
  }
  test::write_file(folder / "train.txt", text);
  const json report = contamination(all, {folder / "train.txt"}, 10);
  CHECK(report.at("touched") == all.size());
  CHECK(report.at("worst").size() == 10);
  for (const json& w : report.at("worst")) CHECK(w.at("share") == 1.0);
}

TEST_CASE("the questions of a run's rollouts are compared with the held-out ones", "[contamination]") {
  const test::Folder folder;
  const std::string run = folder / "run";
  std::filesystem::create_directories(run + "/rollouts/rollout-00000000");
  test::write_file(run + "/rollouts/rollout-00000000/answers.jsonl",
                   "{\"rollout\":0,\"answers\":2}\n{\"question\":\"r12=\",\"response\":\"21\"}\n"
                   "{\"question\":\"r34=\",\"response\":\"43\"}\n{\"question\":\"r34=\",\"response\":\"34\"}\n");
  const json clean = contamination({problem("r56=", "65")}, {run}, 10).at("rollouts")[0];
  CHECK(clean.at("rollouts") == 1);
  CHECK(clean.at("answers") == 3);
  CHECK(clean.at("asked") == 0);
  const json asked = contamination({problem("r34=", "43"), problem("r56=", "65")}, {run}, 10).at("rollouts")[0];
  CHECK(asked.at("asked") == 1);
  CHECK(asked.at("examples")[0].at("line") == 3);
}

TEST_CASE("what can't be looked in is named", "[contamination]") {
  const test::Folder folder;
  CHECK_THROWS_AS(contamination(farms(), {folder / "none.txt"}, 10), Error);
  test::write_file(folder / "bad.jsonl", "{\"a\":1}\n{\n");
  CHECK_THROWS_WITH(contamination(farms(), {folder / "bad.jsonl"}, 10), Catch::Contains("bad.jsonl:2: not JSON"));
  std::filesystem::create_directories(folder / "empty");
  CHECK_THROWS_WITH(contamination(farms(), {folder / "empty"}, 10), Catch::Contains("a folder without rollouts"));
}
