// The view as lines of text, for a terminal: what `troupe inspect --once` prints and the full screen is made of.
#pragma once

#include <string>
#include <vector>

#include "launcher/inspect/view.h"

namespace troupe {

// Run, verdict, nodes, bill and experts' load.
std::vector<std::string> head_lines(const View& view);
std::string actors_title();
std::string actor_line(const ActorView& actor);
// Who waits for whom, from the conductor to the root.
std::vector<std::string> why_lines(const View& view);
// All of one actor.
std::vector<std::string> actor_lines(const View& view, const ActorView& actor);

std::string human_age(std::int64_t us);  // "12 us", "3.4 ms", "12.0 s", "5:02"

}  // namespace troupe
