// `troupe eval RUN --tasks NAMES`: answers to held-out problems, judged, with what they tell. The law: every figure says
// of which weights, problems and sampling it is, by digest and number, so that it can be had again.
#include "launcher/evaluate_tasks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "actors/checkpoint/manifest.h"
#include "actors/rules/statistics.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/answers_figures.h"
#include "launcher/config.h"
#include "launcher/config_keys.h"
#include "launcher/contamination.h"
#include "launcher/loop.h"
#include "launcher/teller.h"
#include "launcher/tools.h"
#include "launcher/whole_file.h"
#include "launcher/world.h"

namespace troupe {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::pair<int, int> levels_of(const std::string& text) {
  int low = 0, high = 0, end = 0;
  const bool range = std::sscanf(text.c_str(), "%d-%d%n", &low, &high, &end) == 2;
  if (!range) high = std::sscanf(text.c_str(), "%d%n", &low, &end) == 1 ? low : 0;
  if (low < 1 || high < low || end != static_cast<int>(text.size()))
    throw Error("eval: --levels is {}, must be two levels as in 2-4, or one", in_quotes(text));
  return {low, high};
}

// The options as configuration, so that what is wrong with them is said as it is of any key.
std::vector<std::string> sets_of(const EvaluateOptions& o) {
  std::string names;
  for (const std::string& name : o.tasks) names += (names.empty() ? "" : ", ") + in_quotes(name);
  std::vector<std::string> sets{"kind=\"evaluate\"",
                                fmt::format("task.names=[{}]", names),
                                fmt::format("evaluate.problems={}", o.problems),
                                fmt::format("evaluate.samples={}", o.samples),
                                fmt::format("evaluate.temperature={}", o.temperature),
                                fmt::format("evaluate.top_p={}", o.top_p)};
  if (!o.levels.empty()) {
    const auto [low, high] = levels_of(o.levels);
    sets.push_back(fmt::format("task.level_min={}", low));
    sets.push_back(fmt::format("task.level_max={}", high));
  }
  if (o.seed) sets.push_back(fmt::format("train.seed={}", *o.seed));
  if (o.tokens_max > 0) sets.push_back(fmt::format("grpo.completion_max={}", o.tokens_max));
  sets.insert(sets.end(), o.sets.begin(), o.sets.end());
  return sets;
}

// Whatever version it is, nothing follows.
void end_there(Config& config) {
  config.train.steps = 0;
  config.evaluate.exact_match_problems = 0;
}

// The other model answers what this one does, in the same way.
Loaded loaded_like(const std::string& path, const Config& first) {
  Config asks = first;
  asks.generate.length_max = first.generate_length();
  Loaded model = load_to_answer(path, asks);
  model.config.grpo.completion_max = first.grpo.completion_max;
  return model;
}

// Where an evaluation left its answers; empty: `path` is a model.
std::string answers_at(const std::string& path) {
  if (fs::is_regular_file(path)) return path;
  return fs::exists(path + "/answers.jsonl") ? path + "/answers.jsonl" : "";
}

// Whom the model is compared with: opened before anything is sampled.
struct Other {
  std::vector<EvaluatedProblem> problems;
  std::optional<Loaded> model;  // none: the answers are known
};

Other open_other(const EvaluateOptions& options, const Config& first, const TaskSet& tasks,
                 const std::vector<TaskProblem>& asked) {
  Other other;
  if (options.compare.empty()) return other;
  if (const std::string file = answers_at(options.compare); !file.empty()) {
    other.problems = read_answers(file);
    check_same_problems(unanswered(asked), other.problems, options.compare);
  } else {
    other.model = loaded_like(options.compare, first);
    fit_problems(other.model->config, tasks, asked);
  }
  return other;
}

json compared(const EvaluateOptions& options, Other& other, const std::shared_ptr<const TaskSet>& tasks,
              const std::vector<EvaluatedProblem>& problems, std::uint64_t seed) {
  json result;
  if (other.model) {
    other.problems = ask(options.compare, *other.model, tasks, options.quiet);
    result["weights_digest"] = weights_digest(other.model->checkpoint);
  }
  result.update(compare_answers(problems, other.problems, options.compare, seed));
  return result;
}

json described(const EvaluateOptions& options, const Loaded& model, const std::vector<EvaluatedProblem>& problems) {
  const Config& c = model.config;
  return {{"kind", "task_evaluation"},
          {"run", options.run},
          {"checkpoint", model.checkpoint},
          {"version", checkpoint_version(fs::path(model.checkpoint).filename().string()).value_or(0)},
          {"weights_digest", weights_digest(model.checkpoint)},
          {"problems_digest", problems_digest(problems)},
          {"tasks", c.task.names},
          {"levels", {c.task.level_min, c.task.level_max}},
          {"template", c.task.form},
          {"split", c.evaluate.split},
          {"seed", c.train.seed},
          {"problems", problems.size()},
          {"problems_asked", c.evaluate.problems},
          {"samples", c.evaluate.samples},
          {"temperature", c.evaluate.temperature},
          {"top_p", c.evaluate.top_p},
          {"answer_tokens_max", c.answer_tokens_max()},
          {"judge", c.judge.command.empty() ? "built-in" : c.judge.command},
          {"interval", {{"confidence", kConfidence}, {"resamples", kResamples}, {"over", "problems"}}}};
}

std::string dumped(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace) + "\n";
}

// The files to look in, and the run's own rollouts.
std::vector<std::string> places_of(const EvaluateOptions& options, const std::string& checkpoint) {
  std::vector<std::string> places = options.against;
  for (const fs::path& run : {fs::path(options.run), fs::absolute(checkpoint).parent_path().parent_path()}) {
    if (!fs::is_directory(run / "rollouts")) continue;
    if (std::find(places.begin(), places.end(), run.string()) == places.end()) places.push_back(run.string());
    break;
  }
  return places;
}

void make_folder(const std::string& folder) {
  if (folder.empty()) return;
  if (fs::exists(folder + "/evaluation.json"))
    throw Error("{}: an evaluation is here already; choose another --out", folder);
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw Error("{}: can't be made: {}; choose another --out", folder, failed.message());
}

}  // namespace

std::vector<EvaluatedProblem> ask(const std::string& name, const Loaded& model,
                                  const std::shared_ptr<const TaskSet>& tasks, bool quiet) {
  Teller teller(name, quiet);
  return without_repeats(answer_problems(model, tasks, [&](std::size_t done, std::size_t all) { teller(done, all); }));
}

int evaluate_tasks(const EvaluateOptions& options) {
  Loaded model = load_model(options.run, sets_of(options));
  end_there(model.config);
  return evaluate_loaded(std::move(model), options);
}

int evaluate_loaded(Loaded model, const EvaluateOptions& options) {
  const std::int64_t begin_us = monotonic_us();
  start_log("troupe", "", LogLevel::warning);
  const std::shared_ptr<const TaskSet> tasks = open_tasks(model.config);
  const std::vector<TaskProblem> asked = distinct_problems(evaluation_problems(model.config, *tasks));
  const int answer_max = model.config.grpo.completion_max;
  fit_problems(model.config, *tasks, asked);
  if (options.tokens_fixed) model.config.grpo.completion_max = answer_max;
  Other other = open_other(options, model.config, *tasks, asked);
  json overlap;
  if (!options.against.empty()) overlap = contamination(asked, places_of(options, model.checkpoint), options.ngram);
  make_folder(options.out);
  const std::vector<EvaluatedProblem> problems = ask(options.run, model, tasks, options.quiet);
  const std::uint64_t seed = model.config.train.seed;
  json result = described(options, model, problems);
  result.update(figures_by_kind(problems, seed));
  const SolutionsLoss given = solutions_loss(model, *tasks, asked);
  result["reference"] = {{"loss", given.loss}, {"perplexity", std::exp(given.loss)}, {"tokens", given.tokens}};
  if (!options.compare.empty()) result["comparison"] = compared(options, other, tasks, problems, seed);
  if (!overlap.is_null()) result["contamination"] = overlap;
  result["seconds"] = static_cast<double>(monotonic_us() - begin_us) * 1e-6;
  if (!options.out.empty()) {
    write_whole_file(options.out + "/answers.jsonl", answers_text(problems));
    if (!overlap.is_null()) write_whole_file(options.out + "/contamination.json", dumped(overlap, 2));
    write_whole_file(options.out + "/evaluation.json", dumped(result, 2));  // the last: it says that all is there
  }
  if (!options.quiet) {
    if (static_cast<int>(problems.size()) < model.config.evaluate.problems)
      std::fprintf(stderr, "of %d problems %zu differ: few are held out at a low level\n",
                   model.config.evaluate.problems, problems.size());
    std::fputs(figures_table(result).c_str(), stderr);
    if (!overlap.is_null()) std::fputs(contamination_text(overlap).c_str(), stderr);
  }
  if (!options.silent) std::fputs(dumped(result, -1).c_str(), stdout);
  return 0;
}

}  // namespace troupe
