// `troupe rehearse` and `troupe bench hardware` as a person uses them.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using nlohmann::json;

namespace {

const std::string kTiny = TROUPE_SOURCE_DIR "/configs/tiny.toml";

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Ended expect_success(const Arguments& arguments) {
  Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

// One sentence on standard error that says all of `parts`.
void expect_refused(const Arguments& arguments, const std::vector<std::string>& parts) {
  const Ended ended = troupe::test::troupe(arguments);
  INFO(json(arguments).dump() << "\n" << ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(ended.err.starts_with("troupe: "));
  for (const std::string& part : parts) CHECK(has(ended.err, part));
}

}  // namespace

TEST_CASE("an interrupted rehearsal says so and leaves nothing", "[rehearse]") {
  Process process(troupe_command({"rehearse", kTiny, "--set", "train.steps=1000000", "--steps", "100000"}));
  process.follow([begin = std::chrono::steady_clock::now()] {
    return std::chrono::steady_clock::now() - begin > std::chrono::seconds(1);
  });
  process.signal_group(SIGINT);
  const std::string scratch = fmt::format("/tmp/troupe-rehearsal-{}", process.pid());
  const Ended ended = process.wait();
  CHECK(ended.code == 130);
  CHECK(ended.err.ends_with("troupe: interrupted\n"));
  CHECK(!std::filesystem::exists(scratch));
}

TEST_CASE("what a rehearsal says a node will hold covers what it holds, and not much more", "[rehearse]") {
  const Folder folder;
  const Arguments sets = tiny_sets({"layout.nodes=2", "layout.expert_shards=2", "device.threads=1", "link.delay_ms=1"});
  expect_success(tiny_run(folder / "run", {"layout.nodes=2", "layout.expert_shards=2", "device.threads=1"}));
  const json held = metrics_of(folder / "run", "bill").back().at("memory_mib");
  const Ended told = expect_success(with_sets({"rehearse", kTiny, "--json", "--steps", "6"}, sets));
  const json nodes = json::parse(told.out).at("nodes");
  REQUIRE(nodes.size() == held.size());
  for (std::size_t node = 0; node < held.size(); ++node) {
    INFO("node " << node << " held " << held[node] << " MiB: " << nodes[node].dump());
    CHECK(nodes[node].at("peak_mib").get<double>() > held[node].get<double>());
    CHECK(nodes[node].at("peak_mib").get<double>() < 1.3 * held[node].get<double>());
  }
}

TEST_CASE("what the plan says covers a small node whose journal is full", "[rehearse]") {
  const Folder folder;
  const Arguments sets = {"layout.nodes=2", "layout.expert_shards=2", "device.threads=1", "inspect.journal_mib=1",
                          "train.steps=60"};
  expect_success(tiny_run(folder / "run", sets));
  const json held = metrics_of(folder / "run", "bill").back().at("memory_mib");
  const std::string plan = expect_success(with_sets({"plan", kTiny}, tiny_sets(sets))).out;
  for (std::size_t node = 0; node < held.size(); ++node) {
    INFO(plan << "\nheld " << held.dump());
    const std::string line = fmt::format("\nnode {}: peak ", node);
    REQUIRE(has(plan, line));
    CHECK(std::stod(plan.substr(plan.find(line) + line.size())) > held[node].get<double>());
  }
}

TEST_CASE("what can't be rehearsed is refused in a sentence", "[rehearse]") {
  expect_refused({"rehearse", TROUPE_SOURCE_DIR "/configs/r1_tiny.toml"}, {"r1_tiny", "phases"});
  expect_refused({"rehearse", kTiny, "--set", "device.kind=cuda"}, {"device.kind", "processor"});
}

TEST_CASE("this machine is measured into a file that a forecast reads", "[rehearse]") {
  const Folder folder;
  const std::string file = folder / "here.toml";
  expect_success({"bench", "hardware", kTiny, "--out", file, "--name", "here"});
  const std::string text = read_file(file);
  INFO(text);
  CHECK(has(text, "name = \"here\""));
  CHECK(has(text, "measured = [\"bfloat16_gflops\""));
  CHECK(!has(text, "= 0.0\ninside"));
  const Ended plan = expect_success({"plan", TROUPE_SOURCE_DIR "/configs/quickstart.toml", "--cluster", file});
  CHECK(has(plan.out, "here"));
  expect_refused({"bench", "hardware", kTiny, "--like", "nowhere"}, {"nowhere"});
  expect_refused({"bench", "hardware", kTiny, "--out", folder / "none/here.toml"}, {"--out", "there is no folder"});
}
