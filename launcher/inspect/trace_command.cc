// `troupe trace RUN --out FILE`.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "kernels/base/error.h"
#include "launcher/inspect/trace.h"
#include "launcher/journal_file.h"
#include "launcher/run_folder.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

constexpr std::chrono::seconds kProgressEvery(2);

// A line now and then on standard error, of what takes long.
class TraceProgress {
 public:
  explicit TraceProgress(std::uint64_t records) : records_(records), told_(std::chrono::steady_clock::now()) {}
  void operator()(std::uint64_t read) {
    const auto now = std::chrono::steady_clock::now();
    if (now - told_ < kProgressEvery) return;
    told_ = now;
    fmt::print(stderr, "troupe: {:.1f} of {:.1f} million records\n", static_cast<double>(read) * 1e-6,
               static_cast<double>(records_) * 1e-6);
  }

 private:
  std::uint64_t records_;
  std::chrono::steady_clock::time_point told_;
};

TraceChoice choice_of(const TraceOptions& options) {
  if (options.last_seconds && (options.from_step || options.to_step))
    throw Error("--last and --from-step ask for different parts: give one of them");
  if (options.to_step && !options.from_step) throw Error("--to-step needs --from-step, where the part begins");
  if (options.from_step && options.to_step && *options.from_step > *options.to_step)
    throw Error("--from-step is {}, behind --to-step, {}", *options.from_step, *options.to_step);
  if (options.last_seconds && !(*options.last_seconds > 0))
    throw Error("--last is {}, must be above 0 seconds", *options.last_seconds);
  return {options.from_step, options.to_step, options.last_seconds};
}

std::string closing_line(const TraceOptions& options, const TraceCounts& counts, const TraceSpan& part) {
  std::string text =
      fmt::format("{}: {:.3f} s of {} node{}: {} messages, {} segments, {} waits, {} arrows", options.out,
                  static_cast<double>(part.end_us - part.begin_us) * 1e-6, counts.nodes, counts.nodes == 1 ? "" : "s",
                  counts.messages, counts.segments, counts.waits, counts.arrows);
  if (counts.forgotten > 0)
    text += fmt::format("; {} arrows left out, their cause is before this part or forgotten", counts.forgotten);
  if (counts.backwards > 0)
    text += fmt::format("; {} left out, by the nodes' clocks they would run backwards", counts.backwards);
  return text;
}

}  // namespace

int trace(const TraceOptions& options) {
  const TraceChoice choice = choice_of(options);
  const std::string run = current_run(options.run);
  const Config config = load_run_config(run);
  const JournalVisitor journals(run);
  const VisitRecords visit = [&](const HearRecord& hear) { journals.visit(hear); };
  const TraceSurvey survey = survey_journals(visit);
  if (survey.records == 0)
    throw Error("{}: has no journal; was it trained with inspect.journal_mib = {}?", run, config.inspect.journal_mib);
  TraceSpan part;
  try {
    part = chosen_part(survey, choice);
  } catch (const Error& error) {
    throw Error("{}: {}", run, error.what());
  }
  std::ofstream file(options.out, std::ios::trunc);  // it may be /dev/stdout
  if (!file) throw Error("{}: can't be written; is its folder there?", options.out);
  const TraceCounts counts = write_trace(visit, part, file, run, TraceProgress(survey.records));
  file.flush();
  if (!file) throw Error("{}: can't be written to its end; is the disk full?", options.out);
  fmt::print(stderr, "{}\n", closing_line(options, counts, part));
  return 0;
}

}  // namespace troupe
