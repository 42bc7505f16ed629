// Tasks: problems whose answers can be verified. The law: a problem is a pure function of (configuration, seed, split,
// index); which problems are held out depends on what they say and on nothing else, so that no phase that learns from
// [task] (data.kind = "task", rollouts), with whatever seed, levels or mixture, ever sees one that [task] evaluates on.
// data.kind = "arithmetic" is no task, and holds out other problems.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

constexpr char kEndOfAnswer = '\n';  // the token after a solution; no solution has one

struct TaskProblem {
  std::string task;
  std::string prompt;
  std::string solution;     // for a supervised start, without kEndOfAnswer
  std::string answer;       // what a response is compared with; countdown: {"numbers":[8,5],"target":40}
  int level = 0;            // difficulty; jsonl: lines of the given solution
  std::uint64_t index = 0;  // as asked for
};

enum class Split { train, held_out };

class JsonlTask;

// What [task] names, opened: files are read here and never again. Throws Error with file and line, or with the key that
// leaves no problem to give. Const after that, and may be shared between threads.
class Tasks {
 public:
  // fits: which questions of files there is room for; the others are no problems of theirs. Empty: all.
  explicit Tasks(const TaskConfig& config, const std::function<bool(const TaskProblem&)>& fits = {});
  ~Tasks();
  // Any index; tasks and levels come in turns. Of a level with N problems the first N / 40 held-out ones differ; the
  // most there can be are N / 16.
  TaskProblem problem(std::uint64_t seed, Split split, std::uint64_t index) const;
  // Questions of files that there was no room for.
  std::int64_t left_out() const;
  std::size_t bytes() const;  // resident: the index of files

 private:
  TaskProblem generated(const std::string& name, std::uint64_t seed, Split split, std::uint64_t number) const;

  TaskConfig config_;
  std::unique_ptr<JsonlTask> jsonl_;
};

// The hardest level that a task has; 0: there is no such task.
int level_most(const std::string& task);
// One in sixteen. `content`: the problem, alike however it is written.
bool is_held_out(const std::string& content);

}  // namespace troupe
