// What the nodes' journals tell of their compute threads, and which part of it is a step.
#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "launcher/journal_file.h"
#include "launcher/timeline.h"

namespace troupe {

namespace {

RecordedSegment segment_of(const JournalRecord& record) {
  SegmentKey key;
  key.segment_class = static_cast<SegmentClass>(record.kind);
  key.step = record.step;
  key.microbatch = record.microbatch;
  key.layer = record.layer;
  return {key, record.begin_us, record.begin_us + record.took_us};
}

}  // namespace

// What ran together is one entry, of the first.
std::vector<RecordedThread> read_recordings(const std::string& run_folder) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, RecordedThread> threads;
  for (const JournalPage& page : read_journals(run_folder))
    for (const JournalRecord& record : page.records) {
      if (record.entry != JournalEntry::segment || record.chunk != 0) continue;
      RecordedThread& own = threads[{page.owner.node, record.thread}];
      own.node = page.owner.node;
      own.thread = record.thread;
      own.segments.push_back(segment_of(record));
    }
  if (threads.empty())
    throw Error("{}: no journal tells what was computed; was it trained with inspect.journal_mib = 0?", run_folder);
  std::vector<RecordedThread> all;
  for (auto& [place, thread] : threads) all.push_back(std::move(thread));
  return all;
}

void choose_step(TimelinePanel& panel, std::int64_t step) {
  std::map<std::int64_t, std::int64_t> begins;  // of a step's first forward segment
  for (const RecordedThread& thread : panel.threads)
    for (const RecordedSegment& s : thread.segments) {
      if (s.key.segment_class != SegmentClass::forward) continue;
      const auto known = begins.try_emplace(s.key.step, s.begin_us).first;
      known->second = std::min(known->second, s.begin_us);
    }
  if (step < 0 && !begins.empty())
    step = std::next(begins.begin(), static_cast<std::ptrdiff_t>(begins.size() / 2))->first;
  if (!begins.contains(step) || !begins.contains(step + 1))
    throw Error(
        "step {} and the one after are not in the journal any more; it has {} steps, from {}, and more with a larger "
        "inspect.journal_mib",
        step, begins.size(), begins.empty() ? -1 : begins.begin()->first);
  panel.begin_us = begins.at(step);
  panel.end_us = begins.at(step + 1);
}

double busy_share(const TimelinePanel& panel) {
  std::int64_t busy_us = 0;
  for (const RecordedThread& thread : panel.threads)
    for (const RecordedSegment& s : thread.segments)
      busy_us += std::max<std::int64_t>(0, std::min(s.end_us, panel.end_us) - std::max(s.begin_us, panel.begin_us));
  return static_cast<double>(busy_us) / static_cast<double>(std::max<std::int64_t>(1, panel.end_us - panel.begin_us) *
                                                            static_cast<std::int64_t>(panel.threads.size()));
}

}  // namespace troupe
