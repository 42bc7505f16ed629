// Shrinking: the smallest world that still breaks the same law, found by taking away one fault, one node, one step after
// the other. Law: whatever it comes to is expressed in what a person can type, a seed and overrides.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launcher/simulation/scenario.h"

namespace troupe {

struct Overrides {
  bool losses = false;
  std::vector<std::string> faults;  // --fault KEY=VALUE
  std::vector<std::string> sets;    // --set KEY=VALUE
};
std::string to_flags(const Overrides& overrides);

// The law without what differs from world to world: numbers, names of files.
std::string law_of(const std::string& broken);

struct Shrunk {
  Overrides overrides;
  std::string broken;
  int tried = 0;
};
// `broken` runs the world that the overrides describe and says which law broke; it throws Error where there is none.
// REQUIRES: broken(begin) is not empty.
Shrunk shrink(const Overrides& begin, const std::function<std::string(const Overrides&)>& broken);

}  // namespace troupe
