// What the inspector shows of a run: its view is a function of what was observed.
#include <nlohmann/json.hpp>

#include "launcher/config.h"
#include "launcher/inspect/view.h"
#include "tests/support/catch.h"

using namespace troupe;
using nlohmann::json;

namespace {

constexpr std::int64_t kNow = 100'000'000;
constexpr Address kConductor{Role::conductor, 0}, kStage{Role::stage, 0}, kShard{Role::expert_shard, 0};

Config tiny() { return load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", {"train.steps=9", "device.threads=1"}); }

BoardPage::Actor actor_at(const Address& address, std::uint64_t handled) {
  BoardPage::Actor actor;
  actor.address = address;
  actor.version = 4;
  actor.arrived = actor.handled = handled;
  return actor;
}

BoardPage page_at(std::int64_t now_us, std::uint64_t handled) {
  BoardPage page;
  page.pid = 77;
  page.turn_us = page.node.tick_us = now_us;
  page.node.incarnation = 1;
  for (const Address& address : {kConductor, kStage, kShard}) page.actors.push_back(actor_at(address, handled));
  page.threads.resize(1);
  return page;
}

struct Seen {
  Observed before{kNow - 1'000'000, {page_at(kNow - 1'000'000, 100)}, {}}, now{kNow, {page_at(kNow, 350)}, {}};
  LiveFigures figures;
  ViewOptions options{.run = "runs/x", .source = RunSource::live, .can_control = false, .resume = "go on"};
  View view() const { return make_view(tiny(), Plan{}, now, &before, figures, options); }
  BoardPage::Actor& stage() { return now.pages[0].actors[1]; }
};

const ActorView& of(const View& view, const Address& address) {
  for (const ActorView& actor : view.actors)
    if (actor.address == address) return actor;
  FAIL("no " << to_string(address));
  return view.actors.front();
}

}  // namespace

TEST_CASE("an actor that handles, computes, waits or idles is told as such", "[inspect]") {
  Seen seen;
  CHECK(of(seen.view(), kStage).state == "idle");
  seen.stage().waits.push_back({Awaited::expert_result, kShard, {.step = 4, .microbatch = 2}, kNow - 30});
  CHECK(of(seen.view(), kStage).state == "waiting");
  CHECK(of(seen.view(), kStage).doing_age_us == 30);
  SegmentKey key;
  key.step = 4;
  key.layer = 3;
  seen.now.pages[0].threads[0] = {kStage, true, key, kNow - 20};
  CHECK(of(seen.view(), kStage).state == "computing");
  CHECK(of(seen.view(), kStage).doing == "forward of step 4 microbatch 0 layer 3");
  seen.stage().handling = "ExpertResult";
  seen.stage().handling_from = kShard;
  seen.stage().handling_since_us = kNow - 10;
  CHECK(of(seen.view(), kStage).state == "handling");
  CHECK(seen.view().healthy);
}

TEST_CASE("a handler that doesn't return for a second is stuck, and the run is not healthy", "[inspect]") {
  Seen seen;
  seen.stage().handling = "TokenBatch";
  seen.stage().handling_since_us = kNow - 3'000'000;
  seen.stage().arrived += 5;
  seen.stage().oldest_us = kNow - 3'000'000;
  seen.now.pages[0].turn_us = kNow - 3'000'000;
  const View view = seen.view();
  CHECK(of(view, kStage).state == "stuck");
  CHECK(of(view, kStage).queue == 4);
  CHECK(!view.healthy);
  CHECK(view.why.kind == RootKind::handler);
  CHECK(view.nodes[0].life == "silent");
}

TEST_CASE("whoever is stuck is named before the chain of waits is old enough to tell", "[inspect]") {
  Seen seen;
  seen.stage().handling = "TokenBatch";
  seen.stage().handling_from = kConductor;
  seen.stage().handling_since_us = kNow - 1'200'000;
  const View view = seen.view();
  CHECK(!view.healthy);
  CHECK(view.why.kind == RootKind::handler);
  CHECK(view.why.root == "stage 0 (node 0) handles TokenBatch from conductor 0, for 1.2 s");
}

TEST_CASE("rates are of the time since the last look, and of the same process", "[inspect]") {
  Seen seen;
  seen.stage().computing_us = 600'000;
  seen.stage().handling_us = 100'000;
  CHECK(of(seen.view(), kStage).messages_per_second == Approx(250));
  CHECK(of(seen.view(), kStage).busy == Approx(0.6));
  CHECK(of(seen.view(), kStage).handling == Approx(0.1));
  CHECK(of(seen.view(), kStage).waiting == Approx(0.3));
  seen.now.pages[0].pid = 78;
  CHECK(of(seen.view(), kStage).messages_per_second == 0);
}

TEST_CASE("a run that is over is healthy if it finished", "[inspect]") {
  Seen seen;
  seen.options.source = RunSource::over;
  seen.now.pages[0].life = Life::dead;
  CHECK(!seen.view().healthy);
  CHECK(seen.view().why.root.find("go on") != std::string::npos);
  CHECK(of(seen.view(), kStage).state == "dead");
  seen.figures.finished = true;
  CHECK(seen.view().healthy);
}

TEST_CASE("actors are chosen by a word, in the order that is asked for", "[inspect]") {
  Seen seen;
  seen.stage().arrived += 3;
  const View view = seen.view();
  CHECK(chosen_actors(view, ActorOrder::actor, "").front()->address == kConductor);
  CHECK(chosen_actors(view, ActorOrder::queue, "").front()->address == kStage);
  REQUIRE(chosen_actors(view, ActorOrder::actor, "shard").size() == 1);
  CHECK(chosen_actors(view, ActorOrder::actor, "Expert Shard").size() == 1);
  CHECK(chosen_actors(view, ActorOrder::actor, "nothing like it").empty());
}

TEST_CASE("traffic counts what was handled lately, without a node's own words to its actors", "[inspect]") {
  JournalPage page;
  const auto add = [&](JournalEntry entry, Role from, std::int64_t at_us, std::uint32_t bytes) {
    JournalRecord record;
    record.entry = entry;
    record.from_role = static_cast<std::uint8_t>(from);
    record.to_role = static_cast<std::uint8_t>(Role::expert_shard);
    (entry == JournalEntry::sent ? record.sent_us : record.begin_us) = at_us;
    record.bytes = bytes;
    page.records.push_back(record);
  };
  add(JournalEntry::handled, Role::stage, kNow - 2'000'000, 7);
  add(JournalEntry::handled, Role::stage, kNow - 500'000, 10);
  add(JournalEntry::handled, Role::stage, kNow - 400'000, 20);
  add(JournalEntry::handled, Role::supervisor, kNow - 300'000, 0);
  add(JournalEntry::sent, Role::stage, kNow - 300'000, 40);
  const TrafficMap traffic = traffic_of({page}, kNow - kTrafficUs);
  REQUIRE(traffic.size() == 1);
  CHECK(traffic.begin()->second.messages == 2);
  CHECK(traffic.begin()->second.bytes == 30);
}

TEST_CASE("the view as JSON has all that was agreed, and only the actors that are asked for", "[inspect]") {
  Seen seen;
  seen.stage().credits.push_back({kShard, 1, 4});
  seen.now.traffic[{kStage, kShard}] = {50, 1000};
  const json whole = view_json(seen.view());
  for (const char* key : {"format", "run", "source", "now_us", "step", "steps", "figures", "healthy", "verdict",
                          "nodes", "actors", "edges", "why", "bill", "experts"})
    CHECK(whole.contains(key));
  CHECK(whole["actors"].size() == 3);
  REQUIRE(whole["edges"].size() == 1);
  CHECK(whole["edges"][0]["messages_per_second"] == 50.0);
  CHECK(whole["edges"][0]["credits"] == json{{"free", 1}, {"of", 4}});
  const json part = view_json(seen.view(), {ActorOrder::actor, "", 1, 1});
  CHECK(part["actors_count"] == 3);
  REQUIRE(part["actors"].size() == 1);
  CHECK(part["actors"][0]["actor"] == "stage 0");
  CHECK(view_json(seen.view(), {ActorOrder::actor, "", 7, 1})["actors"].empty());
}

TEST_CASE("of many edges the busiest are told", "[inspect]") {
  Seen seen;
  for (std::uint32_t i = 0; i < 3000; ++i) seen.now.traffic[{kStage, {Role::expert_shard, i}}] = {i, i};
  const View view = seen.view();
  REQUIRE(view.edges.size() == kEdgesMax);
  CHECK(view.edges.front().messages_per_second == 2999);
  CHECK(view.edges.back().messages_per_second == 1000);
}
