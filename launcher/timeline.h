// The picture of a step: what every compute thread of every node did, from the segments in the nodes' journals.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/device.h"

namespace troupe {

struct RecordedSegment {
  SegmentKey key;
  std::int64_t begin_us = 0, end_us = 0;
};

// One compute thread of a run.
struct RecordedThread {
  std::uint32_t node = 0, thread = 0;
  std::vector<RecordedSegment> segments;  // in the order in which they ran
};

// Of all nodes, from their journals. Throws Error if they tell nothing.
std::vector<RecordedThread> read_recordings(const std::string& run_folder);

// A run's part of the picture.
struct TimelinePanel {
  std::string title;
  std::vector<RecordedThread> threads;
  std::int64_t begin_us = 0, end_us = 0;  // what is drawn
};
// From the first forward segment of `step` to the first of the next one, over all threads. Throws Error if that was not
// recorded; -1 picks a step about the middle.
void choose_step(TimelinePanel& panel, std::int64_t step);
// That step of a run, titled; as above. Throws Error, also if its journals tell nothing.
TimelinePanel recorded_step(const std::string& run_folder, std::int64_t step);
// Share of the panel's thread time in which segments ran.
double busy_share(const TimelinePanel& panel);
// All panels under one another, to one scale.
constexpr double kTimelineLeft = 96;  // of its panels: what is left of them are the threads' names
std::string timeline_svg(const std::vector<TimelinePanel>& panels, double width = 1000);

}  // namespace troupe
