#include "actors/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "actors/rules/statistics.h"
#include "actors/tasks/task_text.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr std::size_t kShown = 4;  // answers that a person sees
constexpr int kPassMax = 8;

struct Right {
  int answers = 0, right = 0;
  double share() const { return answers > 0 ? static_cast<double>(right) / answers : 0; }
};

json shown(const Config& config, const TaskSet& tasks, const std::vector<RolloutAnswer>& greedy) {
  json all = json::array();
  for (const bool right : {false, true})
    for (const RolloutAnswer& a : greedy) {
      if (a.correct != right || all.size() >= (right ? kShown : kShown / 2)) continue;
      const TaskProblem problem = problem_of(config, tasks, false, 0, a.prompt);
      all.push_back({{"prompt", problem.prompt},
                     {"written", tasks.text.answer(a.tokens)},
                     {"answer", problem.answer},
                     {"right", a.correct}});
    }
  return all;
}

}  // namespace

std::string answers_json(const Config& config, const TaskSet& tasks, std::int64_t version,
                         const std::vector<RolloutAnswer>& sampled, const std::vector<RolloutAnswer>& greedy) {
  std::map<std::int32_t, Right> problems;
  std::map<std::string, Right> levels;
  Right all, best;
  double length = 0, truncated = 0, reward = 0;
  for (const RolloutAnswer& a : sampled) {
    const TaskProblem problem = problem_of(config, tasks, false, 0, a.prompt);
    for (Right* r : {&problems[a.prompt], &levels[fmt::format("{} {}", problem.task, problem.level)], &all}) {
      ++r->answers;
      r->right += a.correct ? 1 : 0;
    }
    length += static_cast<double>(a.tokens.size());
    truncated += a.truncated ? 1 : 0;
    reward += a.reward;
  }
  for (const RolloutAnswer& a : greedy) {
    ++best.answers;
    best.right += a.correct ? 1 : 0;
  }
  const int k = std::min(kPassMax, config.evaluate.samples);
  double pass = 0;
  for (const auto& [prompt, r] : problems)
    pass += k > 0 ? pass_at_k(r.answers, r.right, k) / static_cast<double>(problems.size()) : 0;
  json by_level;
  for (const auto& [name, r] : levels) by_level[name] = r.share();
  const double count = std::max<double>(1, static_cast<double>(sampled.size()));
  return json{{"kind", "answers"},
              {"version", version},
              {"problems", config.evaluate.problems},
              {"samples", config.evaluate.samples},
              {"temperature", config.evaluate.temperature},
              {"accuracy", all.share()},
              {"greedy", best.share()},
              {"pass_k", k},
              {"pass", pass},
              {"reward", reward / count},
              {"length_mean", length / count},
              {"truncated", truncated / count},
              {"levels", by_level},
              {"answers", shown(config, tasks, greedy)}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace troupe
