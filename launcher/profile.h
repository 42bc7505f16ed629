// troupe profile: where every millisecond of a step goes.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct ProfileOptions {
  std::string config_path;
  std::vector<std::string> sets;
  int steps = 10;  // measured, after a few that are not
};

// Trains in one process and prints, per step: compute threads by cause, ops by kind, phase and width, handlers by actor
// and message. Nothing is kept.
int profile(const ProfileOptions& options);

}  // namespace troupe
