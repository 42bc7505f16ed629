#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "actors/data/packing.h"
#include "actors/tasks/task_text.h"
#include "actors/tasks/verify.h"
#include "kernels/base/error.h"
#include "launcher/answers_figures.h"
#include "launcher/config.h"
#include "launcher/evaluate_tasks.h"
#include "launcher/interrupts.h"
#include "launcher/world.h"

namespace troupe {

namespace {

// Every solution after its problem, each a document of its own; solutions alone are to be predicted.
class SolutionsCorpus final : public Corpus {
 public:
  SolutionsCorpus(const Config& config, const TaskText& text, const std::vector<TaskProblem>& problems)
      : config_(config) {
    const std::int32_t length = config.train.sequence_length;
    for (const TaskProblem& problem : problems) {
      const ChatTokens example = text.example(problem);
      const auto size = static_cast<std::int32_t>(example.ids.size());
      if (sequences_.empty() || static_cast<std::int32_t>(sequences_.back().ids.size()) + size > length)
        sequences_.emplace_back();
      Sequence& into = sequences_.back();
      into.start_document();
      for (std::size_t i = 0; i < example.ids.size(); ++i) into.append(example.ids[i], example.is_target[i]);
    }
    for (Sequence& sequence : sequences_) sequence.pad(length, 0);
  }
  Batch train(std::int64_t, std::int32_t) const override { return held_out(0); }
  std::int32_t held_out_microbatches(std::int64_t) const override {
    return (static_cast<std::int32_t>(sequences_.size()) + config_.microbatch_sequences() - 1) /
           config_.microbatch_sequences();
  }
  Batch held_out(std::int32_t microbatch) const override {
    const auto each = static_cast<std::size_t>(config_.microbatch_sequences());
    const std::size_t begin = static_cast<std::size_t>(microbatch) * each;
    const std::size_t end = std::min(begin + each, sequences_.size());
    return batch_of({sequences_.begin() + static_cast<std::ptrdiff_t>(begin),
                     sequences_.begin() + static_cast<std::ptrdiff_t>(end)},
                    config_.train.sequence_length, true);
  }
  std::vector<Provenance> provenance() const override { return {}; }
  std::size_t bytes() const override { return 0; }

 private:
  const Config& config_;
  std::vector<Sequence> sequences_;
};

EvaluatedAnswer to_evaluated(const Config& config, const TaskText& text, const std::string& task,
                             const RolloutAnswer& a) {
  EvaluatedAnswer e;
  e.response = text.answer(a.tokens);
  e.said = said(task, e.response, verify_rules(config));
  e.correct = a.correct;
  e.formatted = a.formatted;
  e.truncated = a.truncated;
  e.reward = a.reward;
  e.tokens = static_cast<std::int64_t>(a.tokens.size());
  return e;
}

Recover beginning(const Loaded& model) {
  Recover begin;
  begin.path = model.checkpoint;
  begin.weights_only = true;
  return begin;
}

}  // namespace

Loaded load_to_answer(const std::string& path, const Config& asks) {
  Loaded model = load_model(path, {"kind=\"pretrain\"", "data.kind=\"none\"", "task.names=[]", "evaluate.problems=0"});
  Config& c = model.config;
  c.kind = "evaluate";
  c.task = asks.task;
  c.judge = asks.judge;
  c.evaluate = asks.evaluate;
  c.evaluate.exact_match_problems = 0;
  c.train.seed = asks.train.seed;
  if (asks.grpo.completion_max > 0) c.grpo.completion_max = asks.grpo.completion_max;
  if (asks.generate.length_max > 0) c.generate.length_max = asks.generate.length_max;
  if (asks.device.threads > 0) c.device.threads = asks.device.threads;
  check_config(c);
  c.train.steps = 0;
  return model;
}

std::vector<TaskProblem> evaluation_problems(const Config& config, const TaskSet& tasks) {
  std::vector<TaskProblem> problems;
  for (int i = 0; i < config.evaluate.problems; ++i) problems.push_back(problem_of(config, tasks, false, 0, i));
  return problems;
}

std::vector<TaskProblem> distinct_problems(const std::vector<TaskProblem>& problems) {
  std::vector<TaskProblem> distinct;
  for (const EvaluatedProblem& p : without_repeats(unanswered(problems)))
    distinct.push_back(problems.at(static_cast<std::size_t>(p.index)));
  return distinct;
}

std::vector<EvaluatedProblem> unanswered(const std::vector<TaskProblem>& problems) {
  std::vector<EvaluatedProblem> all;
  for (const TaskProblem& p : problems)
    all.push_back({p.task, p.prompt, p.answer, p.level, static_cast<std::int64_t>(p.index), {}, std::nullopt});
  return all;
}

void fit_problems(Config& config, const TaskSet& tasks, const std::vector<TaskProblem>& problems) {
  std::size_t prompt = 0, solution = 0, both = 0;
  for (const TaskProblem& problem : problems) {
    const std::size_t p = tasks.text.prompt(problem).size(), s = tasks.text.example(problem).ids.size() - p;
    prompt = std::max(prompt, p);
    solution = std::max(solution, s);
    both = std::max(both, p + s);
  }
  int& answer_max = config.grpo.completion_max;
  if (answer_max > 0) answer_max = std::max(answer_max, static_cast<int>(solution));
  const int wanted = static_cast<int>(std::max(both, prompt + static_cast<std::size_t>(answer_max)));
  const int most = config.model.max_position_embeddings;
  if (static_cast<int>(both) > most)
    throw Error(
        "eval: a problem with its solution has {} tokens, this model reads at most {} "
        "(model.max_position_embeddings); choose lower --levels",
        both, most);
  config.generate.length_max = std::min(most, std::max(config.generate_length(), wanted));
  config.train.sequence_length = std::max(config.train.sequence_length, static_cast<int>(both));
}

std::vector<EvaluatedProblem> answer_problems(const Loaded& model, const std::shared_ptr<const TaskSet>& tasks,
                                              const std::function<void(std::size_t, std::size_t)>& tell) {
  CollectedAnswers answers;
  WorldOptions options;
  options.mode = RunMode::answers;
  options.tasks = tasks;
  options.answers = &answers;
  World world(model.config, options);
  world.recover(beginning(model));
  world.run([](const Report&) {},
            [&] {
              if (interrupts() > 0) throw Interrupted();
              tell(answers.judged, answers.expected);
              return false;
            });
  std::vector<EvaluatedProblem> problems = unanswered(evaluation_problems(model.config, *tasks));
  const auto into = [&](const RolloutAnswer& a) -> EvaluatedProblem& {
    return problems.at(static_cast<std::size_t>(a.prompt));
  };
  for (const RolloutAnswer& a : answers.sampled)
    into(a).sampled.push_back(to_evaluated(model.config, tasks->text, into(a).task, a));
  for (const RolloutAnswer& a : answers.greedy)
    into(a).greedy = to_evaluated(model.config, tasks->text, into(a).task, a);
  return problems;
}

SolutionsLoss solutions_loss(const Loaded& model, const TaskSet& tasks, const std::vector<TaskProblem>& problems) {
  Config config = model.config;
  config.data.mask_documents = true;
  config.evaluate.problems = 0;
  WorldOptions options;
  options.mode = RunMode::evaluate;
  options.corpus = std::make_shared<const SolutionsCorpus>(config, tasks.text, problems);
  SolutionsLoss result;
  World world(config, options);
  world.recover(beginning(model));
  world.run([&](const Report& report) {
    if (report.kind != "evaluation") return;
    const auto j = nlohmann::json::parse(report.json);
    result.loss = j.at("loss").is_number() ? j.at("loss").get<double>() : 0;
    result.tokens = j.at("tokens");
  });
  return result;
}

}  // namespace troupe
