// A trace of a run for Perfetto, from its nodes' journals: what every actor handled, what every compute thread ran, who
// waited for what, and arrows from causes to effects. It is written as the journals are read; what stays in memory is
// 40 bytes for each message and segment of the written part, so that arrows find their ends.
// The law: an arrow has both ends, each within a slice of the trace. Where the journals' rings have forgotten the cause,
// or it lies outside of the part, there is none.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <string>

#include "actors/journal.h"

namespace troupe {

// Calls with every record of every journal, times by one clock; may be called again, and may then tell of more.
using VisitRecords = std::function<void(const HearRecord&)>;

struct TraceSpan {
  std::int64_t begin_us = INT64_MAX, end_us = INT64_MIN;  // the end itself is not in it
  void hold(std::int64_t begin, std::int64_t end);
};

// What there is to choose from.
struct TraceSurvey {
  std::uint64_t records = 0;
  TraceSpan all;
  std::map<std::int64_t, TraceSpan> steps;  // from a step's first forward to the last of its weights' end
};
TraceSurvey survey_journals(const VisitRecords& visit);

// What somebody asked for: nothing is all.
struct TraceChoice {
  std::optional<std::int64_t> from_step, to_step;  // with all that happened from the one's begin to the other's end
  std::optional<double> last_seconds;
};
// Throws Error: there is nothing in the journals, or not those steps.
TraceSpan chosen_part(const TraceSurvey& survey, const TraceChoice& choice);

struct TraceCounts {
  std::uint64_t nodes = 0, messages = 0, segments = 0, waits = 0, arrows = 0;
  std::uint64_t forgotten = 0;  // arrows left out: their cause isn't in the part
  std::uint64_t backwards = 0;  // arrows left out: by the nodes' clocks the effect was before its cause
};
// progress: told now and then how many records were read.
TraceCounts write_trace(const VisitRecords& visit, const TraceSpan& part, std::ostream& out, const std::string& title,
                        const std::function<void(std::uint64_t)>& progress = {});

}  // namespace troupe
