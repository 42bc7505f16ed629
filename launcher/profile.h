// troupe profile: where every millisecond of a step goes, or of decoding.
#pragma once

#include <string>
#include <vector>

namespace troupe {

struct ProfileOptions {
  std::string config_path;
  std::vector<std::string> sets;
  int steps = 10;  // measured, after a few that are not
  // Instead of training: so many sequences are written greedily, `tokens` each, behind prompts of `context` tokens.
  int decode = 0, context = 256, tokens = 64;
};

// In one process. Prints, per step: compute threads by cause, ops by kind, phase and width, handlers by actor and
// message. Nothing is kept.
int profile(const ProfileOptions& options);
int profile_decoding(const ProfileOptions& options);

}  // namespace troupe
