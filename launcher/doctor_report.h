// A machine's facts and findings as a person reads them, and as a program does. Pure functions.
#pragma once

#include <string>

#include "launcher/doctor_findings.h"

namespace troupe {

// Lines of at most a screen's width where names allow it; the last says whether a run can start.
std::string doctor_text(const MachineFacts& machine, const Findings& findings);
// One object, indented: {"can_run", "problems", "advice", then a table for each section of the text}.
std::string doctor_json(const MachineFacts& machine, const Findings& findings);

}  // namespace troupe
