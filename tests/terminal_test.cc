// The full screen in a real terminal: `troupe inspect RUN` in tmux.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launcher/config.h"
#include "tests/support/run.h"
#include "tests/support/stuck.h"
#include "tests/support/tmux.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

const std::string kInspect = std::string(TROUPE_BINARY) + " inspect ";
constexpr const char* kUtf8 = "LC_ALL=C.UTF-8 ";

// A run of two nodes that goes on.
struct LiveRun {
  LiveRun() : process(test::troupe_command(test::tiny_run(path, kSets)), 120'000) {
    REQUIRE(process.follow([&] { return test::metrics_of(path, "step").size() > 3; }));
  }
  const test::Arguments kSets{"train.steps=1000000", "layout.nodes=2", "layout.expert_shards=2",
                              "limits.silence_ms=1000000"};
  test::Folder folder;
  std::string path = folder / "run";
  test::Process process;
};

// The folder of a run in which an actor is stuck.
std::string make_stuck_run(const test::Folder& folder) {
  std::filesystem::create_directories(folder / "run");
  test::write_file(folder / "run/config.toml",
                   config_to_toml(load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", {"device.threads=1"})));
  return folder / "run";
}

int widest_of(const std::string& screen) {
  std::size_t widest = 0;
  std::istringstream lines(screen);
  for (std::string line; std::getline(lines, line);)
    widest = std::max<std::size_t>(widest, std::count_if(line.begin(), line.end(), [](char c) {
                                     return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
                                   }));
  return static_cast<int>(widest);
}

}  // namespace

TEST_CASE("the full screen sorts, filters, opens an actor and shows every pane", "[inspect][terminal]") {
  if (!test::has_tmux()) return;
  const LiveRun run;
  const test::Terminal terminal(kUtf8 + kInspect + run.path, 120, 30);
  REQUIRE(terminal.shows("healthy: nothing stands still"));
  CHECK(terminal.shows(">loader 0"));
  terminal.press({"s", "s", "s"});
  CHECK(terminal.shows("sort: messages"));
  CHECK(terminal.shows(">stage 0"));  // it handles the most
  terminal.press({"/", "s", "h", "a", "r", "d"});
  CHECK(terminal.shows("filter: shard"));
  terminal.press({"Enter"});
  CHECK(terminal.shows("with \"shard\""));
  CHECK(terminal.shows_no_more("loader 0"));
  terminal.press({"Enter"});
  CHECK(terminal.shows("weights version"));
  CHECK(terminal.shows("ExpertBatch"));
  terminal.press({"Escape", "Escape"});
  CHECK(terminal.shows("loader 0"));
  for (const auto& [key, text] : {std::pair{"b", "waiting for another stage"},
                                  {"e", "rows of each expert"},
                                  {"n", "incarnation 1"},
                                  {"w", "who waits for whom"},
                                  {"?", "the run goes on"}}) {
    terminal.press({key});
    CHECK(terminal.shows(text));
  }
  terminal.press({"K"});
  CHECK(terminal.shows("nobody may control this run from here"));
}

TEST_CASE("the first thing seen of a stuck run is who is stuck, and in which message", "[inspect][terminal]") {
  if (!test::has_tmux()) return;
  const test::Folder folder;
  const std::string run = make_stuck_run(folder);
  const test::StuckProcess process(run);
  REQUIRE(test::StuckProcess::is_stuck(run, 1000));
  const test::Terminal terminal(kUtf8 + kInspect + run + "; echo ended with $?; sleep 60", 100, 24);
  REQUIRE(terminal.shows("q quit"));
  const std::string first = terminal.screen();
  CHECK_THAT(first,
             Catch::Contains("NOT HEALTHY: loader 0 (node 0) ") && Catch::Contains("StartStep from conductor 0"));
  CHECK_THAT(first, Catch::Contains(">loader 0       stuck"));
  terminal.press({"w"});
  CHECK(terminal.shows("1. conductor 0 (node 0) waits for the plan of the step"));
  CHECK(terminal.shows("root: loader 0 (node 0) has been handling StartStep from conductor 0"));
  terminal.press({"w", "Enter"});
  CHECK(terminal.shows("loader 0 on node 0: stuck"));
  CHECK(terminal.shows("handles StartStep from conductor 0, for"));
  terminal.press({"q"});
  CHECK(terminal.shows("ended with 3"));
}

TEST_CASE("quitting leaves the terminal as it was", "[inspect][terminal]") {
  if (!test::has_tmux()) return;
  const test::Folder folder;
  const std::string run = folder / "run";
  REQUIRE(test::troupe(test::tiny_run(run, {"train.steps=2"})).code == 0);
  for (const std::string key : {"q", "C-c"}) {
    const std::string before = folder / "before", after = folder / "after";
    const test::Terminal terminal("echo here before; stty -a > " + before + "; " + kInspect + run +
                                      "; echo ended with $?; stty -a > " + after + "; sleep 60",
                                  80, 24);
    REQUIRE(terminal.shows("over: the run is finished"));
    CHECK(terminal.ask("#{alternate_on} #{cursor_flag}") == "1 0\n");
    terminal.press({key});
    CHECK(terminal.shows("here before"));
    CHECK(terminal.shows("ended with 0"));
    CHECK(terminal.ask("#{alternate_on} #{cursor_flag}") == "0 1\n");
    CHECK(test::read_file(after) == test::read_file(before));
    CHECK(test::read_file(after).find("echo") != std::string::npos);
  }
}

TEST_CASE("the full screen fits 40x10, and follows the terminal's size", "[inspect][terminal]") {
  if (!test::has_tmux()) return;
  const test::Folder folder;
  const std::string run = folder / "run";
  REQUIRE(test::troupe(test::tiny_run(run, {"train.steps=2"})).code == 0);
  const test::Terminal terminal(kUtf8 + kInspect + run, 40, 10);
  REQUIRE(terminal.shows("over: the run is finished"));
  for (const char* text : {"step 2 of 2", "loss ", ">loader 0", "q quit"}) CHECK(terminal.shows(text));
  CHECK(widest_of(terminal.screen()) <= 40);
  terminal.resize(120, 30);
  CHECK(terminal.shows("CREDITS"));
  CHECK(terminal.shows("bill  "));
  CHECK(widest_of(terminal.screen()) > 100);
  terminal.resize(40, 10);
  CHECK(terminal.shows_no_more("CREDITS"));
  CHECK(terminal.shows("q quit"));
}

TEST_CASE("colours are left out for whoever wants none, letters beyond ASCII where they can't be shown",
          "[inspect][terminal]") {
  if (!test::has_tmux()) return;
  const test::Folder folder;
  const std::string run = folder / "run";
  REQUIRE(test::troupe(test::tiny_run(run, {"train.steps=2"})).code == 0);
  const auto colours_in = [&](const std::string& environment) {
    const test::Terminal terminal(environment + kInspect + run, 80, 24);
    REQUIRE(terminal.shows("over: the run is finished"));
    return terminal.screen_with_colours();
  };
  const std::string coloured = colours_in(kUtf8), plain = colours_in("NO_COLOR=1 LC_ALL=C ");
  CHECK(coloured.find("\x1b[32m") != std::string::npos);
  CHECK(coloured.find("█") != std::string::npos);
  for (const std::string colour : {"31", "32", "33", "34", "35", "36"})
    CHECK(plain.find("\x1b[" + colour + "m") == std::string::npos);
  CHECK(plain.find("█") == std::string::npos);
  CHECK(plain.find("load  ") != std::string::npos);
}

TEST_CASE("where there is no terminal that could show it, one look is printed", "[inspect][terminal]") {
  const test::Folder folder;
  const std::string run = folder / "run";
  REQUIRE(test::troupe(test::tiny_run(run, {"train.steps=2"})).code == 0);
  const test::Ended printed = test::troupe({"inspect", run});
  CHECK(printed.code == 0);
  CHECK_THAT(printed.out, Catch::Contains("over: the run is finished") && Catch::Contains("ACTOR"));
  if (!test::has_tmux()) return;
  const test::Terminal terminal("TERM=dumb " + kInspect + run + "; echo ended with $?; sleep 60", 200, 24);
  CHECK(terminal.shows("ended with 0"));
  CHECK(terminal.shows("over: the run is finished"));
}
