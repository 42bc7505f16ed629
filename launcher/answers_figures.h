// What a model's answers to held-out problems come to: figures with 95 % intervals over problems, of all and of each
// task and level, and two models on the same problems. Pure functions from answers to JSON; nothing here runs a model.
//
// An estimate is {"value","low","high"}. Figures: accuracy (of the sampled answers), greedy, reward, formatted and
// truncated (shares of the sampled answers), pass {"1","2","4",..}, consensus {"1","2","4",..}, length in tokens
// {"mean","median","p90","max"}. Where nothing was sampled, reward, formatted, truncated and length are of the greedy
// answers.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launcher/answers_file.h"

namespace troupe {

// {"problems","answers", figures..}. REQUIRES: every problem has equally many sampled answers.
nlohmann::json figures_of(const std::vector<EvaluatedProblem>& problems, std::uint64_t seed);

// {"all": figures, "by_task": {"reverse": figures}, "by_level": {"reverse 4": figures}}
nlohmann::json figures_by_kind(const std::vector<EvaluatedProblem>& problems, std::uint64_t seed);

// Throws Error that names the first problem that is another one; `name` is whose answers `other` are.
void check_same_problems(const std::vector<EvaluatedProblem>& these, const std::vector<EvaluatedProblem>& other,
                         const std::string& name);

// This model minus the other, problem by problem: {"accuracy": {"value","low","high","p_value","this","other",
// "better","worse"}, "greedy": .., "reward": ..}; better, worse: on so many problems. Throws Error where problems
// differ, or only one has sampled answers.
nlohmann::json compare_answers(const std::vector<EvaluatedProblem>& these, const std::vector<EvaluatedProblem>& other,
                               const std::string& other_name, std::uint64_t seed);

// The first of each problem; of one that was asked again, the later answers tell nothing new about other problems.
std::vector<EvaluatedProblem> without_repeats(std::vector<EvaluatedProblem> problems);

// The result of an evaluation as a person reads it.
std::string figures_table(const nlohmann::json& result);

}  // namespace troupe
