// A model's answers to held-out problems: the same actors, sampling and judging as in training, without training.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/tasks/task_text.h"
#include "launcher/answers_file.h"
#include "launcher/run_config.h"
#include "launcher/tools.h"

namespace troupe {

// A model that is asked what `asks` says: its task, judge, [evaluate], seed and threads. An answer is as long as the
// model's own run had it where `asks` sets neither grpo.completion_max nor generate.length_max. Nothing follows the
// version that it has. Throws Error: there is no such model, or it can't be asked this.
Loaded load_to_answer(const std::string& path, const Config& asks);

// The evaluation that `troupe eval --tasks` makes, of a model that is loaded so. Its folder is options.out.
int evaluate_loaded(Loaded model, const EvaluateOptions& options);

// What a solution costs a model: sums over the tokens of the given solutions, ends included.
struct SolutionsLoss {
  double loss = 0;  // mean, in nats
  std::int64_t tokens = 0;
};

// The problems that config.evaluate asks for: numbers 0.. of the held-out ones under config.train.seed.
std::vector<TaskProblem> evaluation_problems(const Config& config, const TaskSet& tasks);

// Each once: a level with few problems gives some again.
std::vector<TaskProblem> distinct_problems(const std::vector<TaskProblem>& problems);

// Problems without any answers yet.
std::vector<EvaluatedProblem> unanswered(const std::vector<TaskProblem>& problems);

// Makes room for these problems and their solutions in what a sequence holds; an answer may then be as long as the
// longest of these solutions. Throws Error if the model can't read them.
void fit_problems(Config& config, const TaskSet& tasks, const std::vector<TaskProblem>& problems);

// tell(done, all): now and then, how many answers are judged.
std::vector<EvaluatedProblem> answer_problems(const Loaded& model, const std::shared_ptr<const TaskSet>& tasks,
                                              const std::function<void(std::size_t, std::size_t)>& tell);

// The same, each problem once, while a person is told how far it is: `name` answers.
std::vector<EvaluatedProblem> ask(const std::string& name, const Loaded& model,
                                  const std::shared_ptr<const TaskSet>& tasks, bool quiet);

SolutionsLoss solutions_loss(const Loaded& model, const TaskSet& tasks, const std::vector<TaskProblem>& problems);

}  // namespace troupe
