// ProcessJury: [judge] processes judges, each a process `troupe judge` (launcher/judge.h), and one thread that gives each a
// request at a time. A judge that doesn't answer within judge.wall_seconds is killed with all that it started, one that
// dies is missed at once; either way its request comes back with a problem, and another judge is started for the next.
#pragma once

#include <memory>
#include <string>

#include "actors/config.h"
#include "actors/jury.h"
#include "actors/tasks/verify.h"

namespace troupe {

struct JuryOptions {
  JudgeConfig judge;
  VerifyRules rules;
  std::string program = "/proc/self/exe";  // that knows the command `judge`
};
JuryOptions jury_options(const Config& config);

// Judges are started when there is something to judge.
std::unique_ptr<Jury> make_process_jury(JuryOptions options);

}  // namespace troupe
