// From the facts of hosts and pairs to what is wrong with them. Pure. The law is the doctor's: a finding stops runs only if
// a run of these hosts could not start, or would die.
#pragma once

#include <string>

#include "launcher/doctor_findings.h"
#include "launcher/pairs/facts.h"

namespace troupe {

Findings findings_of(const HostsFacts& facts);  // those that stop runs first

// Why no process came from a host. words: the last that were said there, or by the command that should have started it;
// code: its exit code, -1: it has not ended.
std::string why_absent(const std::string& host, const std::string& words, int code, const std::string& program);

// As a person reads it, and as one JSON object.
std::string hosts_text(const HostsFacts& facts, const Findings& findings);
std::string hosts_json(const HostsFacts& facts, const Findings& findings);

// The middle one, the lower of two; 0 of none.
double median_of(std::vector<double> values);

}  // namespace troupe
