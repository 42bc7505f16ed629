// What the inspector's server answers, without HTTP: times and events from journals, figures for Prometheus, metrics.
#include "launcher/inspect/web_answers.h"

#include <charconv>
#include <sstream>

#include "kernels/base/error.h"
#include "launcher/inspect/prometheus.h"
#include "launcher/inspect/timeline_json.h"
#include "tests/support/run.h"
#include "tests/support/web.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;

namespace {

constexpr std::uint64_t kFirstId = 1ULL << 52 | 1ULL << 40;  // more than a double holds to the unit
const Address kStage{Role::stage, 0}, kShard{Role::expert_shard, 1};

JournalRecord record(JournalEntry entry, std::uint64_t number, std::uint64_t cause, std::int64_t begin_us,
                     std::uint32_t took_us = 5) {
  JournalRecord r{.id = kFirstId + number, .cause = cause == 0 ? 0 : kFirstId + cause, .begin_us = begin_us};
  r.took_us = took_us;
  r.entry = entry;
  r.from_role = static_cast<std::uint8_t>(kStage.role);
  r.to_role = static_cast<std::uint8_t>(kStage.role);
  return r;
}
JournalRecord message(const Message& of, std::uint64_t number, std::uint64_t cause, std::int64_t begin_us) {
  JournalRecord r = record(JournalEntry::handled, number, cause, begin_us);
  r.kind = static_cast<std::uint8_t>(of.index());
  r.sent_us = begin_us - 10;
  return r;
}
JournalRecord to_shard(JournalRecord r) {
  r.to_role = static_cast<std::uint8_t>(kShard.role);
  r.to_index = kShard.index;
  return r;
}

// On node 0 a stage hears of a batch (1), computes (2), hears that it is done (2) and sends to a shard on node 1 (3).
std::vector<JournalPage> two_nodes() {
  JournalPage zero, one;
  zero.owner.number = one.owner.number = 1;
  one.owner.node = 1;
  JournalRecord segment = record(JournalEntry::segment, 2, 1, 1'010, 20);
  segment.kind = static_cast<std::uint8_t>(SegmentClass::weight_gradient);
  segment.step = 3;
  JournalRecord sent = to_shard(message(ExpertBatch{}, 3, 2, 1'046));
  sent.entry = JournalEntry::sent;
  sent.begin_us = 0;
  JournalRecord wait = record(JournalEntry::wait, 0, 0, 1'045, 100);
  wait.id = 0;
  wait.kind = static_cast<std::uint8_t>(Awaited::expert_result);
  zero.records = {message(TokenBatch{}, 1, 0, 1'000), segment, message(SegmentDone{}, 2, 1, 1'030), sent,
                  to_shard(wait)};
  one.records = {to_shard(message(ExpertBatch{}, 3, 2, 1'060))};
  zero.written = zero.records.size();
  one.written = one.records.size();
  return {zero, one};
}

json timeline(const std::vector<JournalPage>& pages, const TimelinePart& part = {}) {
  return json::parse(timeline_json(pages, part).json);
}

JournalPage many(std::size_t count) {
  JournalPage page;
  page.owner.number = 1;
  for (std::size_t i = 1; i <= count; ++i)
    page.records.push_back(message(Vote{}, i, i - 1, static_cast<std::int64_t>(i) * 100));
  page.written = count;
  return page;
}

// A strict reader of Prometheus' text: each family HELP, TYPE, then its samples, and no sample twice.
struct Samples {
  std::map<std::string, double> values;  // by name and labels
  std::map<std::string, std::string> types;
};

bool is_name(const std::string& name) {
  return !name.empty() && std::isdigit(static_cast<unsigned char>(name[0])) == 0 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:") ==
             std::string::npos;
}

// {name="value",...}: where it ends.
std::size_t read_labels(const std::string& line, std::size_t at) {
  for (++at;; ++at) {
    const std::size_t equal = line.find("=\"", at);
    REQUIRE(equal != std::string::npos);
    REQUIRE(is_name(line.substr(at, equal - at)));
    for (at = equal + 2; line.at(at) != '"'; ++at) {
      if (line[at] != '\\') continue;
      REQUIRE(std::string("\\\"n").find(line.at(++at)) != std::string::npos);
    }
    if (line.at(++at) == '}') return at + 1;
    REQUIRE(line[at] == ',');
  }
}

void read_sample(const std::string& line, const std::string& family, Samples& samples) {
  const std::size_t name_end = line.find_first_of("{ ");
  REQUIRE(line.substr(0, name_end) == family);
  const std::size_t end = line[name_end] == '{' ? read_labels(line, name_end) : name_end;
  REQUIRE(line.at(end) == ' ');
  const std::string number = line.substr(end + 1);
  double value = 0;
  const auto [stop, problem] = std::from_chars(number.data(), number.data() + number.size(), value);
  REQUIRE((problem == std::errc() && stop == number.data() + number.size()));
  REQUIRE(samples.values.emplace(line.substr(0, end), value).second);
}

Samples samples_of(const std::string& text) {
  Samples samples;
  std::istringstream lines(text);
  std::string family, line;
  REQUIRE(text.back() == '\n');
  while (std::getline(lines, line)) {
    INFO(line);
    if (line.starts_with("# HELP ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      REQUIRE(is_name(family));
      REQUIRE(line.size() > 7 + family.size() + 1);
      REQUIRE(std::getline(lines, line));
      REQUIRE(line.starts_with("# TYPE " + family + " "));
      const std::string type = line.substr(8 + family.size());
      REQUIRE((type == "gauge" || type == "counter"));
      REQUIRE((type == "counter") == family.ends_with("_total"));
      REQUIRE(samples.types.emplace(family, type).second);
      continue;
    }
    read_sample(line, family, samples);
  }
  return samples;
}

struct Desk {
  explicit Desk(bool may_control = false) : source(folder / "metrics.jsonl"), answers(source, may_control) {}
  json ask(const std::string& path, const WebQuery& query = {}, int status = 200, const std::string& body = "") {
    const WebAnswer answer = answers.answer({path, query, body});
    INFO(answer.body);
    CHECK(answer.status == status);
    return json::parse(answer.body);
  }
  Folder folder;
  MadeUpSource source;
  WebAnswers answers;
};

}  // namespace

TEST_CASE("a time of the journals has its segments, messages and waits, with ids that no number would hold", "[web]") {
  const json all = timeline(two_nodes());
  CHECK(all["complete"] == true);
  REQUIRE((all["segments"].size() == 1 && all["messages"].size() == 3 && all["waits"].size() == 1));
  const std::string one = std::to_string(kFirstId + 1), two = std::to_string(kFirstId + 2),
                    three = std::to_string(kFirstId + 3);
  CHECK(all["segments"][0] == json::array({two, one, 0, 0, 1'010, 1'030, "weight_gradient", "stage 0", 3, -1, -1}));
  CHECK(all["messages"][0] ==
        json::array({one, "0", "TokenBatch", "stage 0", "stage 0", 0, 0, 990, 1'000, 5, -1, -1, -1, 0}));
  CHECK(all["messages"][2] ==
        json::array({three, two, "ExpertBatch", "stage 0", "expert_shard 1", 0, 1, 1'050, 1'060, 5, -1, -1, -1, 0}));
  CHECK(all["waits"][0] == json::array({"stage 0", to_string(Awaited::expert_result), "expert_shard 1", 1'045, 1'145}));
}

TEST_CASE("a time is cut where it is asked for, and to what is of one actor", "[web]") {
  const json end = timeline(two_nodes(), {.from_us = 1'031, .to_us = 1'050});
  CHECK((end["segments"].empty() && end["messages"].size() == 1 && end["waits"].size() == 1));
  CHECK((end["from_us"] == 1'031 && end["to_us"] == 1'050 && end["complete"] == true));
  const json shard = timeline(two_nodes(), {.actor = kShard});
  CHECK((shard["segments"].empty() && shard["messages"].size() == 1 && shard["waits"].size() == 1));
  CHECK(timeline({})["messages"].empty());
}

TEST_CASE("of more than the limit the newest stay, and the answer says from when on it is whole", "[web]") {
  const json all = timeline({many(50)}, {.from_us = 0, .to_us = 10'000, .limit = 50});
  CHECK((all["complete"] == true && all["messages"].size() == 50));
  const json cut = timeline({many(50)}, {.from_us = 0, .to_us = 10'000, .limit = 10});
  CHECK(cut["complete"] == false);
  REQUIRE(cut["messages"].size() == 10);
  CHECK(cut["messages"][0][8] == 4'100);
  CHECK(cut["from_us"] == 4'006);
  CHECK(timeline({many(50)}, {.from_us = cut["from_us"], .limit = 10})["complete"] == true);
}

TEST_CASE("what the rings have forgotten makes an answer incomplete, from there on it is whole", "[web]") {
  JournalPage page = many(50);
  page.first = 30;
  page.records.erase(page.records.begin(), page.records.begin() + 30);
  CHECK(timeline({page}, {.from_us = 0})["complete"] == false);
  CHECK(timeline({page}, {.from_us = 0})["from_us"] == 3'106);
  CHECK(timeline({page}, {.from_us = 3'106})["complete"] == true);
  CHECK(timeline_json({page}, {.from_us = 0}).lacking);
  CHECK(!timeline_json({page}, {.from_us = 0, .limit = 5}).lacking);
  JournalPage later = many(50);
  later.owner.number = 3;  // those before it were deleted
  CHECK(timeline({later}, {.from_us = 0})["complete"] == false);
  CHECK(timeline({later}, {.from_us = 100})["complete"] == true);
}

TEST_CASE("an event is told with its cause and what it caused; a segment stands for its own end", "[web]") {
  const auto told = [](std::uint64_t number) { return json::parse(event_json(two_nodes(), kFirstId + number)->json); };
  const json segment = told(2);
  CHECK(segment["event"]["segment"][6] == "weight_gradient");
  CHECK(segment["cause"]["message"][2] == "TokenBatch");
  REQUIRE(segment["caused"].size() == 1);
  CHECK(segment["caused"][0]["message"][2] == "ExpertBatch");
  const json first = told(1);
  CHECK(first["cause"].is_null());
  REQUIRE(first["caused"].size() == 1);
  CHECK(first["caused"][0]["segment"][0] == std::to_string(kFirstId + 2));
  CHECK(first["caused_more"] == false);
  CHECK(!event_json(two_nodes(), kFirstId + 9));
  CHECK(!event_json(two_nodes(), 0));
}

TEST_CASE("of a long journal only as much is read as an answer needs", "[web]") {
  Desk desk;
  desk.source.pages = {many(400'000)};
  const json end = desk.ask("/api/timeline", {{"from_us", "39990000"}});
  CHECK((end["complete"] == true && end["messages"].size() == 101));
  const json begin = desk.ask("/api/timeline", {{"from_us", "0"}, {"to_us", "1000"}});
  CHECK((begin["complete"] == true && begin["messages"].size() == 10));
  const json event = desk.ask("/api/event", {{"id", std::to_string(kFirstId + 7)}});
  CHECK(event["cause"]["message"][0] == std::to_string(kFirstId + 6));
  CHECK(event["caused"][0]["message"][0] == std::to_string(kFirstId + 8));
  desk.ask("/api/event", {{"id", "12"}}, 404);
}

TEST_CASE("the view is paged, sorted and filtered as it is asked for, and looked at once a second", "[web]") {
  Desk desk;
  const json all = desk.ask("/api/view");
  CHECK((all["actors_count"] == 6 && all["actors_matching"] == 6 && all["actors"].size() == 6));
  CHECK(all["places"].size() == 6);
  CHECK(all["can_control"] == false);
  const json page = desk.ask("/api/view", {{"limit", "2"}, {"offset", "1"}, {"sort", "queue"}, {"filter", "SHARD"}});
  CHECK((page["actors_count"] == 6 && page["actors_matching"] == 4 && page["places"].size() == 6));
  REQUIRE(page["actors"].size() == 2);
  CHECK(page["actors"][0]["actor"] == "expert_shard 2");
  CHECK(desk.ask("/api/view", {{"filter", "node 0"}})["actors_matching"] == 6);
  CHECK(desk.ask("/api/view", {{"filter", "node 01"}})["actors_matching"] == 0);
  for (int i = 0; i < 100; ++i) desk.ask("/api/view", {{"limit", "3"}});
  CHECK(desk.source.looks <= 3);
}

TEST_CASE("numbers, words and ids that are none are refused with a sentence", "[web]") {
  Desk desk;
  const std::vector<std::pair<std::string, WebQuery>> kWrong = {{"/api/view", {{"limit", "1001"}}},
                                                                {"/api/view", {{"limit", "-1"}}},
                                                                {"/api/view", {{"limit", ""}}},
                                                                {"/api/view", {{"limit", "7x"}}},
                                                                {"/api/view", {{"sort", "size"}}},
                                                                {"/api/view", {{"offset", "1e3"}}},
                                                                {"/api/view", {{"filter", std::string(201, 'x')}}},
                                                                {"/api/timeline", {{"from_us", "now"}}},
                                                                {"/api/timeline", {{"limit", "100001"}}},
                                                                {"/api/timeline", {{"limit", "0"}}},
                                                                {"/api/timeline", {{"to_us", "9223372036854775808"}}},
                                                                {"/api/timeline", {{"actor", "nobody"}}},
                                                                {"/api/event", {}},
                                                                {"/api/event", {{"id", "-1"}}},
                                                                {"/api/event", {{"id", "0x12"}}},
                                                                {"/api/metrics", {{"after", "-5"}}}};
  for (const auto& [path, query] : kWrong) CHECK(!desk.ask(path, query, 400)["error"].get<std::string>().empty());
  desk.ask("/api/nothing", {}, 404);
}

TEST_CASE("metrics are told line by line as they stand, at most so many, on from any line", "[web]") {
  Desk desk;
  std::string lines;
  for (int i = 0; i < 12'000; ++i) lines += fmt::format("{{\"kind\":\"step\",\"step\":{},\"loss\":1.50}}\n", i);
  write_file(desk.folder / "metrics.jsonl", lines + "{\"kind\":\"st");
  std::size_t told = 0;
  std::int64_t next = 0;
  for (json answer; !(answer = desk.ask("/api/metrics", {{"after", std::to_string(next)}}))["lines"].empty();) {
    CHECK(answer["lines"].size() <= 5000);
    CHECK(answer["lines"][0]["step"] == told);
    told += answer["lines"].size();
    next = answer["next"];
  }
  CHECK((told == 12'000 && next == 12'000));
  CHECK(desk.answers.answer({"/api/metrics", {{"after", "11999"}}, ""}).body.find("\"loss\":1.50}") !=
        std::string::npos);
  write_file(desk.folder / "metrics.jsonl", "{\"kind\":\"step\",\"step\":0}\n");
  CHECK(desk.ask("/api/metrics", {{"after", "12000"}})["next"] == 1);
}

TEST_CASE("Prometheus can read the view, with labels escaped and counters called so", "[web]") {
  Desk desk;
  write_file(desk.folder / "metrics.jsonl",
             R"({"kind":"step","step":3,"loss":1.25,"tokens_per_second":4100,"mfu":null,"cost_dollars":0.5})"
             "\n");
  const WebAnswer answer = desk.answers.answer({"/metrics", {}, ""});
  CHECK(answer.type == "text/plain; version=0.0.4; charset=utf-8");
  const Samples samples = samples_of(answer.body);
  CHECK(samples.values.at("troupe_loss") == 1.25);
  CHECK(samples.values.at("troupe_tokens_per_second") == 4100);
  CHECK(samples.values.at("troupe_cost_dollars") == 0.5);
  CHECK(!samples.values.contains("troupe_mfu_ratio"));
  CHECK(samples.values.at("troupe_healthy") == 1);
  CHECK(samples.values.at("troupe_step") == 4);
  CHECK(samples.values.at(R"(troupe_run_info{run="runs/\"x\"\\y",name="tiny",source="live"})") == 1);
  CHECK(samples.values.at(R"(troupe_node_bill_seconds_total{node="0",bin="useful"})") == 1.5);
  CHECK(samples.values.at(R"(troupe_actor_queue_messages{actor="expert_shard 3",node="0"})") == 3);
  CHECK(samples.values.at(R"(troupe_actor_messages_handled_total{actor="stage 0",node="0"})") == 200);
  CHECK(samples.types.at("troupe_actor_busy_ratio") == "gauge");
  CHECK(samples.types.at("troupe_node_memory_bound_bytes") == "gauge");
}

TEST_CASE("a source that fails is told as such, and control that can't be says why", "[web]") {
  Desk desk(true);
  CHECK(desk.ask("/api/view")["can_control"] == true);
  desk.source.refusal = "node 1 is not there";
  CHECK(desk.ask("/api/control", {}, 409, R"({"do":"kill","node":1})")["error"] == "node 1 is not there");
  desk.source.refusal = "";
  CHECK(desk.ask("/api/control", {}, 200, R"({"do":"pause"})")["said"] == "done");
  CHECK(desk.ask("/api/control", {}, 400, "{").contains("error"));
  const int looks = desk.source.looks;
  desk.ask("/api/view");
  CHECK(desk.source.looks == looks + 1);
  desk.source.before_look = [] { throw Error("the folder is gone"); };
  desk.ask("/api/control", {}, 200, R"({"do":"pause"})");
  CHECK(desk.ask("/api/view", {}, 500)["error"].get<std::string>().find("the folder is gone") != std::string::npos);
}
