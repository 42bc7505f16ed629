// troupe inspect --web: the page of what a source shows, until Ctrl-C.
#pragma once

#include "launcher/inspect/source.h"
#include "launcher/tools.h"

namespace troupe {

// Returns the process's exit code.
int inspect_web(const InspectOptions& options, InspectSource& source);

}  // namespace troupe
