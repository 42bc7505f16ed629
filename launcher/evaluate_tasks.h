// A model's answers to held-out problems: the same actors, sampling and judging as in training, without training.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/tasks/task_text.h"
#include "launcher/answers_file.h"
#include "launcher/run_config.h"

namespace troupe {

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

// Makes room for these problems and their solutions in what a sequence holds. Throws Error if the model can't read them.
void fit_problems(Config& config, const TaskSet& tasks, const std::vector<TaskProblem>& problems);

// tell(done, all): now and then, how many answers are judged.
std::vector<EvaluatedProblem> answer_problems(const Loaded& model, const std::shared_ptr<const TaskSet>& tasks,
                                              const std::function<void(std::size_t, std::size_t)>& tell);

SolutionsLoss solutions_loss(const Loaded& model, const TaskSet& tasks, const std::vector<TaskProblem>& problems);

}  // namespace troupe
