// troupe inspect --web: the page of a run, until Ctrl-C.
#pragma once

#include "launcher/inspect/source.h"
#include "launcher/tools.h"

namespace troupe {

// It says where the page is, and how to reach it from elsewhere. 0: Ctrl-C ended it. Throws Error.
int inspect_web(InspectSource& source, const InspectOptions& options);

}  // namespace troupe
