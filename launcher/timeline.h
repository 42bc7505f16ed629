// The picture of a step: what every compute thread of every node did, from the segments that the nodes noted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/recording.h"

namespace troupe {

// One compute thread of a run.
struct RecordedThread {
  std::uint32_t node = 0, thread = 0;
  std::vector<RecordedSegment> segments;  // in the order in which they ran
};

// A node's record, RUN/timeline/node-N: a line a segment, "thread class step microbatch layer begin_us end_us".
void write_recording(const std::string& run_folder, std::uint32_t node,
                     const std::vector<std::vector<RecordedSegment>>& threads);
// Of all nodes. Throws Error if there is none.
std::vector<RecordedThread> read_recordings(const std::string& run_folder, int nodes);

// A run's part of the picture.
struct TimelinePanel {
  std::string title;
  std::vector<RecordedThread> threads;
  std::int64_t begin_us = 0, end_us = 0;  // what is drawn
};
// From the first forward segment of `step` to the first of the next one, over all threads. Throws Error if that was not
// recorded; -1 picks a step about the middle.
void choose_step(TimelinePanel& panel, std::int64_t step);
// Share of the panel's thread time in which segments ran.
double busy_share(const TimelinePanel& panel);
// All panels under one another, to one scale.
std::string timeline_svg(const std::vector<TimelinePanel>& panels);

}  // namespace troupe
