// The picture of a step: which part of a record it is, and what stands in it.
#include "launcher/timeline.h"
#include "kernels/base/error.h"
#include "launcher/journal_file.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

RecordedSegment segment(SegmentClass segment_class, std::int64_t step, std::int32_t microbatch, std::int64_t begin_us,
                        std::int64_t end_us) {
  return {{segment_class, step, microbatch, 0}, begin_us, end_us};
}

// Two threads, two steps and the beginning of a third, which take 1,000 us each; the second thread begins later.
TimelinePanel two_steps() {
  using enum SegmentClass;
  TimelinePanel panel{"two steps", {{0, 0, {}}, {1, 0, {}}}, 0, 0};
  for (std::int64_t step = 0; step < 3; ++step) {
    const std::int64_t at = 5000 + 1000 * step;
    panel.threads[0].segments.push_back(segment(forward, step, 0, at, at + 250));
    panel.threads[0].segments.push_back(segment(forward, step, 0, at + 250, at + 500));
    panel.threads[0].segments.push_back(segment(weight_gradient, step, 0, at + 900, at + 1000));
    panel.threads[1].segments.push_back(segment(forward, step, 1, at + 500, at + 600));
    panel.threads[1].segments.push_back(segment(backward, step, 1, at + 600, at + 900));
  }
  return panel;
}

}  // namespace

TEST_CASE("a step is drawn from its first forward to the next step's", "[timeline]") {
  TimelinePanel panel = two_steps();
  choose_step(panel, 0);
  CHECK((panel.begin_us == 5000 && panel.end_us == 6000));
  choose_step(panel, -1);
  CHECK((panel.begin_us == 6000 && panel.end_us == 7000));
  CHECK(busy_share(panel) == Approx(0.5));
  CHECK_THROWS_AS(choose_step(panel, 2), Error);  // its end was not recorded
  TimelinePanel nothing;
  CHECK_THROWS_AS(choose_step(nothing, -1), Error);
}

TEST_CASE("a picture is of what the journals of all nodes tell", "[timeline]") {
  const Folder folder;
  const TimelinePanel panel = two_steps();
  CHECK_THROWS_AS(read_recordings(folder / ""), Error);
  for (std::uint32_t node = 0; node < 2; ++node) {
    JournalFile file(folder / "", node, {.journal_mib = 1, .journals_kept = 1});
    for (const RecordedSegment& s : panel.threads[node].segments)
      file.journal().ran(0, {Segment{s.key, {}, {}, 0}}, {Address{Role::stage, 0}}, s.begin_us, s.end_us);
  }
  const auto read = read_recordings(folder / "");
  REQUIRE(read.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(read[i].node == i);
    REQUIRE(read[i].segments.size() == panel.threads[i].segments.size());
    for (std::size_t k = 0; k < read[i].segments.size(); ++k) {
      CHECK(read[i].segments[k].key == panel.threads[i].segments[k].key);
      CHECK(read[i].segments[k].end_us == panel.threads[i].segments[k].end_us);
    }
  }
}

TEST_CASE("a picture names its runs and nodes, and joins segments that touch", "[timeline]") {
  TimelinePanel panel = two_steps();
  choose_step(panel, 0);
  const std::string svg = timeline_svg({panel});
  for (const char* part : {"<svg", "two steps", "node 0", "node 1", "waiting", "</svg>"})
    CHECK(svg.find(part) != std::string::npos);
  std::size_t rectangles = 0;
  for (std::size_t at = svg.find("<path "); at != std::string::npos; at = svg.find("<path ", at + 1))
    rectangles += svg.compare(at, 15, "<path class=\"a\"") == 0 ? 0 : 1;
  CHECK(rectangles == 4);  // forward and weights of one microbatch; forward and backward of the other
}
