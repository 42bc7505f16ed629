// The report: RUN/report.md and its pictures, made when a run ends, from what lies in its folder alone. For a person who
// wants to know what was trained, on what, what it learned, what it cost, and how far to trust it.
#pragma once

#include <string>

#include "launcher/config.h"

namespace troupe {

// Of a run with phases, or of one run. Throws Error if it can't be written.
void write_report(const Recipe& recipe, const std::string& run);

}  // namespace troupe
