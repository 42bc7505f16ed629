// A world in a process of its own: a programmer's error, a crash or a handler that never returns ends the child, and is
// told as the law that was broken.
#pragma once

#include <string>

#include "launcher/simulation/scenario.h"

namespace troupe {

// As Simulator::run says it; empty: no law was broken. What the simulator has computed for undisturbed worlds is shared
// with the child.
std::string broken_in_child(Simulator& simulator, const Scenario& scenario, unsigned seconds_max);

}  // namespace troupe
