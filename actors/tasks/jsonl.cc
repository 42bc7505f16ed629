#include "actors/tasks/jsonl.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "actors/data/json_lines.h"
#include "actors/data/r1.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {
namespace {

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// What follows the last mark, without blanks, commas and $; all of the text where there is none.
std::string final_answer(const std::string& worked) {
  const std::size_t mark = worked.rfind(kAnswerMark);
  if (mark == std::string::npos) return trimmed(worked);
  std::string answer = trimmed(worked.substr(mark + kAnswerMark.size()));
  std::erase_if(answer, [](char c) { return c == ',' || c == '$'; });
  return answer;
}

}  // namespace

JsonlTask::JsonlTask(const TaskConfig& config, const std::function<bool(const TaskProblem&)>& fits) : config_(config) {
  if (config.files.empty()) throw Error("task.files is empty, must name a file for task jsonl");
  for (const std::string& path : config.files) {
    files_.push_back(std::make_unique<MappedFile>(path));
    index(static_cast<std::uint32_t>(files_.size() - 1), fits);
  }
  const auto refuse = [&](const char* part) {
    throw Error(
        "task.files ({}, ...) have {} problems to train on and {} held out, none {}, and {} for which "
        "train.sequence_length has no room: give more of them, or more room",
        config.files[0], training_.size(), held_out_.size(), part, left_out_);
  };
  if (training_.empty()) refuse("to train on");
  if (held_out_.empty()) refuse("held out");
}

void JsonlTask::index(std::uint32_t file, const std::function<bool(const TaskProblem&)>& fits) {
  const std::string_view all = files_[file]->text();
  for_each_json_line(all, [&](const JsonLine& line) {
    if (line.text.size() >= (std::size_t{1} << 31)) {
      throw Error("{}:{}: a problem of {} bytes is too long", config_.files[file], line.number, line.text.size());
    }
    const Pair pair = read(line.text, fmt::format("{}:{}", config_.files[file], line.number));
    const Line found{.file = file,
                     .bytes = static_cast<std::uint32_t>(line.text.size()),
                     .begin = static_cast<std::uint64_t>(line.text.data() - all.data())};
    if (fits && !fits(problem_of(pair)))
      ++left_out_;
    else
      (is_held_out("jsonl " + pair.question) ? held_out_ : training_).push_back(found);
  });
}

JsonlTask::Pair JsonlTask::read(std::string_view line, const std::string& place) const {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  const auto text = [&](const std::string& key) -> std::string {
    if (!json.is_object() || !json.contains(key) || !json[key].is_string()) {
      throw Error("{}: not a JSON object with strings \"{}\" and \"{}\" (task.prompt_key, task.answer_key)", place,
                  config_.prompt_key, config_.answer_key);
    }
    return trimmed(json[key].get<std::string>());
  };
  Pair pair{text(config_.prompt_key), text(config_.answer_key)};
  if (pair.question.empty() || final_answer(pair.worked).empty())
    throw Error("{}: the question is empty or no answer follows {}", place, kAnswerMark);
  return pair;
}

TaskProblem JsonlTask::problem(std::uint64_t seed, Split split, std::uint64_t number) const {
  const std::vector<Line>& lines = split == Split::held_out ? held_out_ : training_;
  const std::uint64_t key = random_key(seed, split == Split::held_out ? "task/jsonl/held out" : "task/jsonl/train");
  const std::uint64_t epoch = number / lines.size();
  const Line& line = lines[random_permute(number % lines.size(), lines.size(), random_word(key, epoch))];
  return problem_of(read(files_[line.file]->text().substr(line.begin, line.bytes), config_.files[line.file]));
}

TaskProblem JsonlTask::problem_of(const Pair& pair) const {
  const bool is_r1 = config_.form == "r1";
  const std::size_t mark = pair.worked.rfind(kAnswerMark);
  const std::string steps = trimmed(pair.worked.substr(0, mark)), answer = final_answer(pair.worked);
  std::string solution = is_r1 ? r1_solution(mark == std::string::npos ? "" : steps, answer) : pair.worked;
  std::replace(solution.begin(), solution.end(), kEndOfAnswer, ' ');
  return {.task = "jsonl",
          .prompt = is_r1 ? r1_prompt(pair.question, "answer") : pair.question + "\n",
          .solution = solution,
          .answer = answer,
          .level = static_cast<int>(std::count(steps.begin(), steps.end(), '\n')) + 1};
}

}  // namespace troupe
