// `troupe trace`: a file that holds to the format, whose arrows lead from causes to effects.
#include "launcher/inspect/trace.h"

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/inspect/wait_lanes.h"
#include "launcher/simulation/sim_world.h"
#include "tests/support/run.h"
#include "tests/support/small_world.h"
#include "tests/support/trace_rules.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;

namespace {

VisitRecords visit_pages(const std::vector<JournalPage>& pages) {
  return [&pages](const HearRecord& hear) {
    for (const JournalPage& page : pages)
      for (const JournalRecord& record : page.records) hear(page.owner, record);
  };
}

struct Written {
  TraceCounts counts;
  json trace;
};

Written written(const std::vector<JournalPage>& pages, const TraceChoice& choice = {}) {
  const VisitRecords visit = visit_pages(pages);
  const TraceSurvey survey = survey_journals(visit);
  std::ostringstream out;
  const TraceCounts counts = write_trace(visit, chosen_part(survey, choice), out, "a run");
  return {counts, json::parse(out.str())};
}

// Three steps of two nodes, with all that happened.
const std::vector<JournalPage>& world_pages() {
  static const std::vector<JournalPage> kPages = small_world().journals;
  return kPages;
}

JournalRecord handled(std::uint64_t id, std::uint64_t cause, std::int64_t begin_us, std::uint32_t took_us) {
  JournalRecord record{.id = id, .cause = cause, .sent_us = begin_us - 2, .begin_us = begin_us, .took_us = took_us};
  record.to_role = static_cast<std::uint8_t>(Role::stage);
  return record;
}

std::vector<JournalPage> page_of(std::vector<JournalRecord> records) { return {{{.node = 0}, 0, std::move(records)}}; }

std::string faults_text(const json& trace) {
  std::string text;
  for (const std::string& fault : trace_faults(trace)) text += fault + "\n";
  return text;
}

json& event_of(json& trace, const std::string& phase) {
  for (json& event : trace["traceEvents"])
    if (event["ph"] == phase) return event;
  throw Error("no event {}", phase);
}

}  // namespace

TEST_CASE("the trace of a company holds to the format, and has every message, segment and arrow", "[trace]") {
  const auto [counts, trace] = written(world_pages());
  CHECK(faults_text(trace) == "");
  std::map<std::uint64_t, std::uint64_t> causes;
  std::uint64_t messages = 0, segments = 0, arrows = 0;
  const std::size_t segment_done = Message(SegmentDone{}).index();
  for (const JournalPage& page : world_pages())
    for (const JournalRecord& r : page.records) {
      if (r.entry != JournalEntry::handled && r.entry != JournalEntry::segment) continue;
      const bool message = r.entry == JournalEntry::handled, end = message && r.kind == segment_done;
      (message ? messages : segments) += 1;
      if (!end) causes[r.id] = r.cause;
      arrows += end || r.cause != 0 ? 1 : 0;
    }
  CHECK(counts.messages == messages);
  CHECK(counts.segments == segments);
  CHECK(counts.arrows == arrows);
  CHECK((counts.forgotten == 0 && counts.backwards == 0 && counts.nodes == 2));
  std::map<std::string, int> seen;
  for (const TraceArrow& arrow : trace_arrows(trace)) {
    ++seen[arrow.what];
    const std::string from = (*arrow.from)["args"]["id"], to = (*arrow.to)["args"]["id"];
    INFO(arrow.what << " from " << *arrow.from << " to " << *arrow.to);
    if (arrow.what == "end") REQUIRE((from == to || (*arrow.from)["args"].contains("together")));
    if (arrow.what == "message") REQUIRE(causes.at(std::stoull(to)) == std::stoull(from));
    if (arrow.what == "segment" && !(*arrow.to)["args"].contains("together"))
      REQUIRE(causes.at(std::stoull(to)) == std::stoull(from));
  }
  CHECK((seen["message"] > 1000 && seen["segment"] > 100 && seen["end"] > 100));
}

TEST_CASE("the rules of the format see what is wrong with a trace", "[trace]") {
  const json good = written(page_of({handled(1, 0, 10, 5), handled(2, 1, 20, 5)})).trace;
  REQUIRE(faults_text(good) == "");
  const auto broken = [&](const std::function<void(json&)>& change) {
    json trace = good;
    change(trace);
    return faults_text(trace);
  };
  const auto says = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(says(broken([](json& t) { event_of(t, "f")["id"] = 99U; }), "without two ends"));
  CHECK(says(broken([](json& t) { event_of(t, "f")["ts"] = 99; }), "ends in no slice"));
  CHECK(says(broken([](json& t) { event_of(t, "s")["ts"] = 99; }), "backwards"));
  CHECK(says(broken([](json& t) { event_of(t, "s")["ts"] = 7; }), "begins in no slice"));
  CHECK(says(broken([](json& t) { event_of(t, "f").erase("bp"); }), "bp is missing"));
  CHECK(says(broken([](json& t) { event_of(t, "X")["dur"] = 12; }), "reaches out"));
  CHECK(says(broken([](json& t) { event_of(t, "X")["dur"] = -1; }), "negative"));
  CHECK(says(broken([](json& t) { event_of(t, "X").erase("ts"); }), "ts is missing"));
  CHECK(says(broken([](json& t) { event_of(t, "X")["color"] = "red"; }), "not a key"));
  CHECK(says(broken([](json& t) { event_of(t, "X")["tid"] = 5; }), "has no name"));
  CHECK(says(broken([](json& t) { event_of(t, "X")["ph"] = "Q"; }), "not a phase"));
  CHECK(says(broken([](json& t) { event_of(t, "s")["id"] = "1"; }), "no number"));
  CHECK(says(broken([](json& t) { t["displayTimeUnit"] = "ms"; }), "not a key"));
}

TEST_CASE("of a cause that the ring forgot, or that the clocks put behind its effect, there is no arrow", "[trace]") {
  const Written forgot = written(page_of({handled(2, 1, 20, 5), handled(3, 2, 30, 5)}));
  CHECK(faults_text(forgot.trace) == "");
  CHECK((forgot.counts.arrows == 1 && forgot.counts.forgotten == 1));
  std::vector<JournalPage> pages = page_of({handled(1, 0, 100, 5)});
  pages.push_back({{.node = 1}, 0, {handled(2, 1, 50, 5)}});
  const Written backwards = written(pages);
  CHECK(faults_text(backwards.trace) == "");
  CHECK((backwards.counts.arrows == 0 && backwards.counts.backwards == 1));
}

TEST_CASE("what the clock can't tell apart stands one after another, each with its own arrows", "[trace]") {
  std::vector<JournalRecord> records;
  for (std::uint64_t id = 1; id <= 50; ++id) records.push_back(handled(id, id - 1, 10, 0));
  const auto [counts, trace] = written(page_of(records));
  CHECK(faults_text(trace) == "");
  CHECK(counts.arrows == 49);
  for (const TraceArrow& arrow : trace_arrows(trace))
    CHECK(std::stoi((*arrow.from)["args"]["id"].get<std::string>()) + 1 ==
          std::stoi((*arrow.to)["args"]["id"].get<std::string>()));
}

TEST_CASE("segments that ran together are one slice, with the arrows of all", "[trace]") {
  std::vector<JournalRecord> records{handled(1, 0, 10, 3)};
  for (std::uint64_t id = 2; id <= 4; ++id) {
    JournalRecord segment = handled(id, 1, 20, 9);
    segment.entry = JournalEntry::segment;
    segment.chunk = static_cast<std::int16_t>(id - 2);
    segment.layer = static_cast<std::int16_t>(id);
    records.push_back(segment);
  }
  const auto [counts, trace] = written(page_of(records));
  CHECK(faults_text(trace) == "");
  CHECK((counts.arrows == 3 && counts.segments == 3));
  const auto arrows = trace_arrows(trace);
  REQUIRE(arrows.size() == 3);
  for (const TraceArrow& arrow : arrows) CHECK((*arrow.to)["args"]["together"] == 3);
}

TEST_CASE("a part of a run is some of its steps, or its last seconds", "[trace]") {
  const Written all = written(world_pages());
  const Written step = written(world_pages(), {.from_step = 1, .to_step = {}, .last_seconds = {}});
  CHECK(faults_text(step.trace) == "");
  CHECK((step.counts.messages > 100 && step.counts.messages < all.counts.messages));
  CHECK(step.counts.forgotten > 0);
  for (const json& event : step.trace["traceEvents"])
    if (event.value("cat", "") == "segment" && event["name"] == "forward") CHECK(event["args"]["step"] == 1);
  const Written last = written(world_pages(), {.from_step = {}, .to_step = {}, .last_seconds = 1e-3});
  CHECK(faults_text(last.trace) == "");
  CHECK(last.counts.messages < all.counts.messages);
  CHECK_THROWS_AS(written(world_pages(), {.from_step = 1, .to_step = 7, .last_seconds = {}}), Error);
  CHECK_THROWS_AS(written({}), Error);
}

TEST_CASE("what an actor waits for is told beside what it does, and cut at the part's edges", "[trace]") {
  std::vector<JournalRecord> records{handled(1, 0, 1000, 5), handled(2, 1, 2000, 5)};
  for (const std::int64_t begin_us : {500, 1200, 1500}) {
    JournalRecord wait = handled(0, 0, begin_us, 600);
    wait.entry = JournalEntry::wait;
    wait.from_role = static_cast<std::uint8_t>(Role::stage);
    wait.kind = static_cast<std::uint8_t>(Awaited::vote);
    records.push_back(wait);
  }
  const auto [counts, trace] = written(page_of(records));
  CHECK(faults_text(trace) == "");
  CHECK(counts.waits == 3);
  std::vector<json> waits;
  std::set<json> threads;
  for (const json& event : trace["traceEvents"]) {
    if (event["name"] == "thread_name") threads.insert(event["args"]["name"]);
    if (event.value("cat", "") == "wait") waits.push_back(event);
  }
  CHECK(threads == std::set<json>{"stage 0", "stage 0 waits", "stage 0 waits 2"});
  REQUIRE(waits.size() == 3);
  CHECK((waits[0]["ts"] == 0 && waits[0]["dur"] == 100 && waits[0]["args"]["cut"] == true));
  CHECK((waits[1]["name"] == "a vote" && waits[1]["ts"] == 200 && waits[1]["dur"] == 600));
}

TEST_CASE("waits that overlap are told in lanes, in each of which they nest", "[trace]") {
  WaitLanes lanes;
  CHECK(lanes.lane_of(0, 10) == 0);
  CHECK(lanes.lane_of(5, 12) == 1);
  CHECK(lanes.lane_of(10, 20) == 0);
  CHECK(lanes.lane_of(4, 21) == 1);  // about the one before
  CHECK(lanes.lane_of(4, 22) == 2);  // of two that begin together a reader takes the first for the outer one
}

TEST_CASE("a real run is traced from its folder, also a part of it, and asked for what isn't there it says so",
          "[trace]") {
  const Folder folder;
  REQUIRE(test::troupe(tiny_run(folder / "run", {"layout.nodes=2"})).code == 0);
  const Ended all = test::troupe({"trace", folder / "run", "--out", folder / "all.json"});
  INFO(all.err);
  REQUIRE(all.code == 0);
  CHECK(all.err.find("2 nodes") != std::string::npos);
  const json trace = json::parse(read_file(folder / "all.json"));
  CHECK(faults_text(trace) == "");
  CHECK(trace_arrows(trace).size() > 1000);
  REQUIRE(test::troupe({"trace", folder / "run", "--out", folder / "part.json", "--from-step", "2", "--to-step", "3"})
              .code == 0);
  CHECK(faults_text(json::parse(read_file(folder / "part.json"))) == "");
  const auto refusal = [&](const Arguments& more) {
    Arguments arguments{"trace", folder / "run", "--out", folder / "none.json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = test::troupe(arguments);
    CHECK(ended.code == 1);
    return ended.err;
  };
  CHECK(refusal({"--from-step", "40"}).find("steps 0 to 5") != std::string::npos);
  CHECK(refusal({"--to-step", "4"}).find("--from-step") != std::string::npos);
  CHECK(refusal({"--from-step", "4", "--to-step", "2"}).find("behind") != std::string::npos);
  CHECK(refusal({"--last", "0"}).find("above 0") != std::string::npos);
  CHECK(refusal({"--last", "1", "--from-step", "1"}).find("one of them") != std::string::npos);
  CHECK(!std::filesystem::exists(folder / "none.json"));
}
