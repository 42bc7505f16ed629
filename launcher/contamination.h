// Contamination: evaluation problems that stand in training text. Looked for are runs of `ngram` words that a problem
// (its question with the given solution) and a file have in common; a problem of fewer words is looked for as a whole,
// with its solution and without it. Words are what blanks separate, in lower case, without punctuation around them.
//
// Words of a template that a good part of the problems share (kTemplateShare of them, three at least) count for none.
// Time is linear in the text. Memory is about 100 bytes a word of the problems, whatever the size of the files, which
// are mapped and read once. Runs of words are compared by 64-bit hashes: with a million runs on one side and 10^12 words
// on the other, a false match is expected once in 18 scans.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "actors/tasks/task.h"

namespace troupe {

constexpr double kTemplateShare = 0.1;
constexpr int kWorstShown = 10;

// places: text files (a .jsonl file is read as the texts of its objects), or folders of runs, whose rollouts must not
// have asked any of the problems. {"kind","ngram","problems","short","touched","touched_share","runs_of_words",
// "runs_ignored","files":[{"file","bytes","words","matches"}],"worst":[{"task","level","problem","solution","shared",
// "of","share","words","file","line"}],"rollouts":[{"folder","rollouts","answers","asked","examples"}]}. Throws Error for
// what can't be read.
nlohmann::json contamination(const std::vector<TaskProblem>& problems, const std::vector<std::string>& places,
                             int ngram);

// As a person reads it.
std::string contamination_text(const nlohmann::json& report);

}  // namespace troupe
