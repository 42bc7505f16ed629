#include "launcher/answers_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"

namespace troupe {

using nlohmann::json;

namespace {

std::string line_of(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n"; }

std::string line_of(const EvaluatedProblem& p, const EvaluatedAnswer& a, std::size_t sample, bool greedy) {
  return line_of(json{{"task", p.task},
                      {"level", p.level},
                      {"index", p.index},
                      {"problem", p.problem},
                      {"answer", p.answer},
                      {"sample", sample},
                      {"greedy", greedy},
                      {"response", a.response},
                      {"said", a.said},
                      {"correct", a.correct},
                      {"formatted", a.formatted},
                      {"reward", a.reward},
                      {"tokens", a.tokens},
                      {"truncated", a.truncated}});
}

// A line belongs to the problem of the line before or begins another one.
void add_line(const json& j, std::vector<EvaluatedProblem>& problems) {
  const std::int64_t index = j.at("index");
  if (problems.empty() || problems.back().index != index)
    problems.push_back({j.at("task"), j.at("problem"), j.at("answer"), j.at("level"), index, {}, std::nullopt});
  const EvaluatedAnswer answer{j.at("response"),  j.at("said"),   j.at("correct"), j.at("formatted"),
                               j.at("truncated"), j.at("reward"), j.at("tokens")};
  if (j.at("greedy").get<bool>())
    problems.back().greedy = answer;
  else
    problems.back().sampled.push_back(answer);
}

}  // namespace

std::string answers_text(const std::vector<EvaluatedProblem>& problems) {
  std::string text;
  for (const EvaluatedProblem& p : problems) {
    for (std::size_t s = 0; s < p.sampled.size(); ++s) text += line_of(p, p.sampled[s], s, false);
    if (p.greedy) text += line_of(p, *p.greedy, 0, true);
  }
  return text;
}

std::vector<EvaluatedProblem> read_answers(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw Error("{}: can't be read; name the answers.jsonl that an evaluation with --out wrote", path);
  std::vector<EvaluatedProblem> problems;
  int number = 1;
  for (std::string line; std::getline(in, line); ++number) {
    try {
      add_line(json::parse(line), problems);
    } catch (const json::exception& error) {
      throw Error("{}:{}: not an evaluated answer ({}); name the answers.jsonl that an evaluation with --out wrote",
                  path, number, error.what());
    }
  }
  if (problems.empty()) throw Error("{}: has no answers; evaluate that model again with --out", path);
  return problems;
}

std::string problems_digest(const std::vector<EvaluatedProblem>& problems) {
  std::string text;
  for (const EvaluatedProblem& p : problems) text += line_of(json::array({p.task, p.level, p.problem, p.answer}));
  return sha256(text);
}

}  // namespace troupe
