// What the nodes noted, written and read, and which part of it is a step.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/timeline.h"

namespace troupe {

namespace {

std::string file_of(const std::string& run_folder, std::uint32_t node) {
  return fmt::format("{}/timeline/node-{}", run_folder, node);
}

}  // namespace

void write_recording(const std::string& run_folder, std::uint32_t node,
                     const std::vector<std::vector<RecordedSegment>>& threads) {
  std::error_code failed;
  std::filesystem::create_directories(run_folder + "/timeline", failed);
  std::ofstream file(file_of(run_folder, node), std::ios::trunc);
  for (std::size_t thread = 0; thread < threads.size(); ++thread)
    for (const RecordedSegment& s : threads[thread])
      file << thread << ' ' << static_cast<int>(s.key.segment_class) << ' ' << s.key.step << ' ' << s.key.microbatch
           << ' ' << s.key.layer << ' ' << s.begin_us << ' ' << s.end_us << '\n';
  file.flush();
  if (!file) log_warning("event=timeline_not_written file=\"{}\"", file_of(run_folder, node));
}

std::vector<RecordedThread> read_recordings(const std::string& run_folder, int nodes) {
  std::vector<RecordedThread> all;
  for (std::uint32_t node = 0; node < static_cast<std::uint32_t>(nodes); ++node) {
    std::map<std::uint32_t, RecordedThread> threads;
    std::ifstream file(file_of(run_folder, node));
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::uint32_t thread = 0;
      int segment_class = 0;
      RecordedSegment s;
      words >> thread >> segment_class >> s.key.step >> s.key.microbatch >> s.key.layer >> s.begin_us >> s.end_us;
      if (!words || segment_class < 0 || segment_class > static_cast<int>(SegmentClass::evaluate)) continue;
      s.key.segment_class = static_cast<SegmentClass>(segment_class);
      RecordedThread& own = threads[thread];
      own.node = node;
      own.thread = thread;
      own.segments.push_back(s);
    }
    for (auto& [number, thread] : threads) all.push_back(std::move(thread));
  }
  if (all.empty())
    throw Error("{}: nothing was recorded; train with --set device.record_segments=20000, to the end", run_folder);
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
    throw Error("step {} and the one after were not recorded; there are {} steps, from {}", step, begins.size(),
                begins.empty() ? -1 : begins.begin()->first);
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
