#include "launcher/answers_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "actors/rules/statistics.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"

namespace troupe {

using nlohmann::json;

namespace {

json to_json(const Estimate& e) { return {{"value", e.value}, {"low", e.low}, {"high", e.high}}; }

std::vector<EvaluatedAnswer> told_by(const EvaluatedProblem& p) {
  if (!p.sampled.empty() || !p.greedy) return p.sampled;
  return {*p.greedy};
}

template <typename Value>
double mean_of(const std::vector<EvaluatedAnswer>& answers, Value value) {
  double sum = 0;
  for (const EvaluatedAnswer& a : answers) sum += static_cast<double>(value(a));
  return answers.empty() ? 0 : sum / static_cast<double>(answers.size());
}

double accuracy_of(const EvaluatedProblem& p) {
  return mean_of(p.sampled, [](const EvaluatedAnswer& a) { return a.correct ? 1 : 0; });
}
double greedy_of(const EvaluatedProblem& p) { return p.greedy && p.greedy->correct ? 1 : 0; }
double reward_of(const EvaluatedProblem& p) {
  return mean_of(told_by(p), [](const EvaluatedAnswer& a) { return a.reward; });
}
double formatted_of(const EvaluatedProblem& p) {
  return mean_of(told_by(p), [](const EvaluatedAnswer& a) { return a.formatted ? 1 : 0; });
}
double truncated_of(const EvaluatedProblem& p) {
  return mean_of(told_by(p), [](const EvaluatedAnswer& a) { return a.truncated ? 1 : 0; });
}
double length_of(const EvaluatedProblem& p) {
  return mean_of(told_by(p), [](const EvaluatedAnswer& a) { return a.tokens; });
}

double pass_of(const EvaluatedProblem& p, int k) {
  const auto right = std::count_if(p.sampled.begin(), p.sampled.end(), [](const auto& a) { return a.correct; });
  return pass_at_k(static_cast<int>(p.sampled.size()), static_cast<int>(right), k);
}

// An answer without an end has no vote.
double consensus_of(const EvaluatedProblem& p, int k) {
  std::vector<Ballot> ballots;
  for (const EvaluatedAnswer& a : p.sampled) ballots.push_back({a.truncated ? "" : a.said, a.correct});
  return majority_is_right(ballots, k) ? 1 : 0;
}

json lengths_of(const std::vector<EvaluatedProblem>& problems, const Estimate& mean) {
  std::vector<double> lengths;
  for (const EvaluatedProblem& p : problems)
    for (const EvaluatedAnswer& a : told_by(p)) lengths.push_back(static_cast<double>(a.tokens));
  std::sort(lengths.begin(), lengths.end());
  return {{"mean", to_json(mean)},
          {"median", quantile_of_sorted(lengths, 0.5)},
          {"p90", quantile_of_sorted(lengths, 0.9)},
          {"max", quantile_of_sorted(lengths, 1)}};
}

// A figure's place in the JSON, and its value of each problem.
struct Figure {
  std::string name, part;  // part: of pass and consensus
  std::vector<double> values;
};

template <typename Value>
std::vector<double> values_of(const std::vector<EvaluatedProblem>& problems, Value value) {
  std::vector<double> values;
  for (const EvaluatedProblem& p : problems) values.push_back(value(p));
  return values;
}

std::vector<Figure> all_figures(const std::vector<EvaluatedProblem>& problems, int samples) {
  std::vector<Figure> all;
  if (samples > 0) all.push_back({"accuracy", "", values_of(problems, accuracy_of)});
  all.push_back({"greedy", "", values_of(problems, greedy_of)});
  all.push_back({"reward", "", values_of(problems, reward_of)});
  all.push_back({"formatted", "", values_of(problems, formatted_of)});
  all.push_back({"truncated", "", values_of(problems, truncated_of)});
  all.push_back({"length", "", values_of(problems, length_of)});
  for (int k = 1; k <= samples; k *= 2) {
    all.push_back({"pass", std::to_string(k), values_of(problems, [k](const auto& p) { return pass_of(p, k); })});
    all.push_back(
        {"consensus", std::to_string(k), values_of(problems, [k](const auto& p) { return consensus_of(p, k); })});
  }
  return all;
}

}  // namespace

json figures_of(const std::vector<EvaluatedProblem>& problems, std::uint64_t seed) {
  const int samples = problems.empty() ? 0 : static_cast<int>(problems[0].sampled.size());
  std::size_t answers = 0;
  for (const EvaluatedProblem& p : problems) {
    CHECK(static_cast<int>(p.sampled.size()) == samples, "problem {} has {} sampled answers, the first has {}", p.index,
          p.sampled.size(), samples);
    answers += p.sampled.size() + (p.greedy ? 1 : 0);
  }
  const std::vector<Figure> figures = all_figures(problems, samples);
  std::vector<std::vector<double>> values;
  for (const Figure& f : figures) values.push_back(f.values);
  const std::vector<Estimate> estimates = bootstrap_means(values, seed);
  json result{{"problems", problems.size()}, {"answers", answers}};
  for (std::size_t f = 0; f < figures.size(); ++f) {
    if (figures[f].name == "length")
      result["length"] = lengths_of(problems, estimates[f]);
    else if (figures[f].part.empty())
      result[figures[f].name] = to_json(estimates[f]);
    else
      result[figures[f].name][figures[f].part] = to_json(estimates[f]);
  }
  return result;
}

json figures_by_kind(const std::vector<EvaluatedProblem>& problems, std::uint64_t seed) {
  std::map<std::string, std::vector<EvaluatedProblem>> tasks, levels;
  for (const EvaluatedProblem& p : problems) {
    tasks[p.task].push_back(p);
    levels[fmt::format("{} {}", p.task, p.level)].push_back(p);
  }
  json result{{"all", figures_of(problems, seed)}};
  for (const auto& [name, part] : tasks) result["by_task"][name] = figures_of(part, seed);
  for (const auto& [name, part] : levels) result["by_level"][name] = figures_of(part, seed);
  return result;
}

std::vector<EvaluatedProblem> without_repeats(std::vector<EvaluatedProblem> problems) {
  std::set<std::pair<std::string, std::string>> seen;
  std::erase_if(problems,
                [&](const EvaluatedProblem& p) { return !seen.emplace(p.task, p.problem + "\n" + p.answer).second; });
  return problems;
}

// ---- Two models -----------------------------------------------------------------------------------------------------

namespace {

std::string shown(const EvaluatedProblem& p) {
  return fmt::format("{} ({}, level {})", json(p.problem).dump(-1, ' ', false, json::error_handler_t::replace), p.task,
                     p.level);
}

}  // namespace

void check_same_problems(const std::vector<EvaluatedProblem>& these, const std::vector<EvaluatedProblem>& other,
                         const std::string& name) {
  const std::string advice = "evaluate both with the same --tasks, --levels, --problems and --seed";
  for (std::size_t i = 0; i < std::min(these.size(), other.size()); ++i) {
    const EvaluatedProblem &a = these[i], &b = other[i];
    if (a.task != b.task || a.level != b.level || a.problem != b.problem || a.answer != b.answer)
      throw Error("eval --compare: {} answers other problems: number {} is {} there and {} here; {}", name, i + 1,
                  shown(b), shown(a), advice);
  }
  if (these.size() != other.size())
    throw Error("eval --compare: {} answers {} problems, here are {}; {}", name, other.size(), these.size(), advice);
}

namespace {

template <typename Value>
json paired(const std::vector<EvaluatedProblem>& these, const std::vector<EvaluatedProblem>& other, Value value,
            std::uint64_t seed) {
  std::vector<double> differences, here, there;
  for (std::size_t i = 0; i < these.size(); ++i) {
    here.push_back(value(these[i]));
    there.push_back(value(other[i]));
    differences.push_back(here.back() - there.back());
  }
  const std::vector<Estimate> e = bootstrap_means({differences, here, there}, seed);
  json result = to_json(e[0]);
  result["this"] = e[1].value;
  result["other"] = e[2].value;
  result["p_value"] = sign_flip_p_value(differences, seed);
  result["better"] = std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0; });
  result["worse"] = std::count_if(differences.begin(), differences.end(), [](double d) { return d < 0; });
  return result;
}

}  // namespace

json compare_answers(const std::vector<EvaluatedProblem>& these, const std::vector<EvaluatedProblem>& other,
                     const std::string& other_name, std::uint64_t seed) {
  check_same_problems(these, other, other_name);
  const auto samples = [](const auto& p) { return p.empty() ? 0 : p[0].sampled.size(); };
  if ((samples(these) == 0) != (samples(other) == 0))
    throw Error("eval --compare: {} has {} sampled answers a problem, here are {}; sample from both or from none",
                other_name, samples(other), samples(these));
  json result{{"with", other_name}, {"problems", these.size()}};
  if (!these.empty() && !these[0].sampled.empty()) result["accuracy"] = paired(these, other, accuracy_of, seed);
  result["greedy"] = paired(these, other, greedy_of, seed);
  result["reward"] = paired(these, other, reward_of, seed);
  return result;
}

}  // namespace troupe
