// `troupe judge`: one judge, a process of a jury (launcher/jury.h). On its standard input and output, a JSON object a line:
//   jury -> judge   settings (JudgeSettings), once; then requests {"task","prompt","answer","response","level"}
//   judge -> jury   {"notes":[...]}, first: what this machine does not let it do; then a verdict for each request,
//                   {"reward","correct","formatted","detail"}, before which notes may come again: a broken command
// It judges one request at a time, by built-in verification or by judge.command, and ends when its input does.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/tasks/verify.h"

namespace troupe {

struct JudgeSettings {
  JudgeConfig judge;
  VerifyRules rules;
  std::string folder;  // where commands work; the jury makes and removes it
};
std::string settings_line(const JudgeSettings& settings);

// The notes of a line of notes; none of any other.
std::vector<std::string> notes_of(const std::string& line);

// Returns the process's exit code.
int judge_main();

}  // namespace troupe
