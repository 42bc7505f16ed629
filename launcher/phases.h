// Phases: a recipe run from its first phase to its last, each in RUN/phases/NAME, beginning with the weights of the one
// before. What a phase came to stands in its phase.json; one that has it is over and never begun again.
#pragma once

#include <string>

#include "launcher/config.h"
#include "launcher/train.h"

namespace troupe {

// Returns the process's exit code; throws Error.
int train_phases(const Recipe& recipe, const std::string& out, const RunStart& start);

// What came of a phase, as read from its folder.
struct PhaseResult {
  std::string name, kind, folder;
  bool over = false;
  std::string ended_by;    // the key of the limit that ended it
  std::string checkpoint;  // its last
  double dollars = 0, device_hours = 0, wall_hours = 0;
};
PhaseResult phase_result(const Config& phase, const std::string& run);

}  // namespace troupe
