// The full screen of `troupe inspect`: puts a Screen's lines on a terminal and gives it keys, until a person quits. It
// looks at the source about once a second; no key waits for an actor.
#pragma once

#include "launcher/inspect/source.h"

namespace troupe {

// Whether standard input and output are a terminal that can place its cursor.
bool has_full_screen();

// True: the run was healthy when it was last looked at. The terminal is left as it was, also when the source throws.
bool show_full_screen(InspectSource& source, ActorOrder order, const std::string& filter);

}  // namespace troupe
