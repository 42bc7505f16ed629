// What a profiler is shown of a GPU's work.
#include <sstream>

#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;

namespace {

// Lines that the profiler wrote: "push NAME", "pop".
std::vector<std::string> seen_in(const Arguments& sets) {
  const Folder folder;
  const std::string file = folder / "ranges";
  Arguments command{"/usr/bin/env", "NVTX_INJECTION64_PATH=" TROUPE_NVTX_TOOL, "TROUPE_TEST_RANGES=" + file};
  for (const std::string& word : troupe_command(tiny_run(folder / "run", sets))) command.push_back(word);
  const Ended ended = run(command);
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  std::vector<std::string> lines;
  std::istringstream text(read_file(file));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("a profiler is shown a range a segment, and in it one for each op that was launched", "[ranges]") {
  const std::vector<std::string> lines =
      seen_in({"train.steps=1", "device.kind=cuda", "data.kind=random", "layout.expert_shards=2"});
  REQUIRE(!lines.empty());
  CHECK(lines[0] == "domain troupe");
  std::size_t depth = 0, segments = 0, ops = 0, backward = 0, grouped = 0;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (lines[i] == "pop") {
      REQUIRE(depth > 0);
      --depth;
      continue;
    }
    REQUIRE(depth < 2);
    const bool is_segment = lines[i].find(" of step ") != std::string::npos;
    CHECK(is_segment == (depth == 0));
    ++(depth++ == 0 ? segments : ops);
    backward += lines[i].rfind("push backward of step 0, microbatch 1, layer 1", 0) == 0 ? 1 : 0;
    grouped += lines[i] == "push GroupedProduct" ? 1 : 0;
  }
  CHECK(depth == 0);
  CHECK(segments > 50);
  CHECK(ops > segments);
  CHECK(backward > 0);
  CHECK(grouped > 0);
}
