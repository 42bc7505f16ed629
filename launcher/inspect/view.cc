#include "launcher/inspect/view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "actors/rules/placement.h"

namespace troupe {

namespace {

using Actor = BoardPage::Actor;

constexpr std::int64_t kStuckUs = 1'000'000;  // in one handler, or without a turn of the loop

std::int64_t age(std::int64_t now_us, std::int64_t since_us) { return std::max<std::int64_t>(0, now_us - since_us); }

std::string life_of(const BoardPage& page, std::int64_t now_us) {
  if (page.node.closed != 0) return "ended";
  if (page.life == Life::dead) return "dead";
  if (page.life == Life::stopped) return "stopped";
  return age(now_us, page.turn_us) > kStuckUs ? "silent" : "running";
}

bool lives(const BoardPage& page) { return page.life == Life::running && page.node.closed == 0; }

std::string work_of(const SegmentKey& key) {
  const char* const kNames[] = {"the end of a step", "backward", "forward", "weight gradients", "evaluation"};
  return fmt::format("{} of step {} microbatch {} layer {}", kNames[static_cast<std::size_t>(key.segment_class)],
                     key.step, key.microbatch, key.layer);
}

// What it does now, as a person says it.
void tell_doing(const BoardPage& page, const Actor& actor, std::int64_t now_us, ActorView& view) {
  const auto thread = std::find_if(page.threads.begin(), page.threads.end(),
                                   [&](const BoardPage::Thread& t) { return t.computes && t.actor == actor.address; });
  if (!actor.handling.empty()) {
    view.doing_age_us = age(now_us, actor.handling_since_us);
    view.state = lives(page) && view.doing_age_us > kStuckUs ? "stuck" : "handling";
    view.doing = fmt::format("handles {} from {}", actor.handling, to_string(actor.handling_from));
  } else if (thread != page.threads.end()) {
    view.state = "computing";
    view.doing = work_of(thread->key);
    view.doing_age_us = age(now_us, thread->since_us);
  } else if (!actor.waits.empty()) {
    const Wait& wait = actor.waits.front();
    view.state = "waiting";
    view.doing = fmt::format("waits for {} of {}", to_string(wait.what), describe(wait.item));
    view.doing_age_us = age(now_us, wait.since_us);
  } else {
    view.state = "idle";
  }
}

ActorView actor_view(const BoardPage& page, const Actor& actor, std::int64_t now_us) {
  ActorView view;
  view.address = actor.address;
  view.node = page.node.node;
  tell_doing(page, actor, now_us, view);
  if (const std::string life = life_of(page, now_us); life == "ended" || life == "dead") view.state = life;
  view.queue = actor.arrived - actor.handled - (actor.handling.empty() || actor.arrived == actor.handled ? 0 : 1);
  view.oldest_age_us = view.queue > 0 ? age(now_us, actor.oldest_us) : 0;
  view.handled = actor.handled;
  view.segments = actor.segments;
  view.bytes = actor.bytes;
  view.version = actor.version;
  view.attempt = actor.attempt;
  view.channels = actor.credits;
  for (const Credits& c : actor.credits) {
    view.credits.free += c.free;
    view.credits.of += c.of;
  }
  for (const Wait& wait : actor.waits)
    view.waits.push_back({to_string(wait.what), describe(wait.item), wait.holder, age(now_us, wait.since_us)});
  view.waits_more = actor.more;
  return view;
}

// Since the earlier look, if it was of the same process.
void tell_rates(const Actor& now, const Actor& before, std::int64_t elapsed_us, ActorView& view) {
  if (elapsed_us <= 0 || now.handled < before.handled) return;
  const auto elapsed = static_cast<double>(elapsed_us);
  const auto share = [&](std::int64_t later, std::int64_t earlier) {
    return std::clamp(static_cast<double>(later - earlier) / elapsed, 0.0, 1.0);
  };
  view.messages_per_second = static_cast<double>(now.handled - before.handled) * 1e6 / elapsed;
  view.busy = share(now.computing_us, before.computing_us);
  view.handling = share(now.handling_us, before.handling_us);
  view.waiting = std::max(0.0, 1 - view.busy - view.handling);
}

const BoardPage* same_process(const Observed* before, const BoardPage& page) {
  if (before == nullptr) return nullptr;
  for (const BoardPage& old : before->pages)
    if (old.node.node == page.node.node && old.node.incarnation == page.node.incarnation && old.pid == page.pid &&
        old.actors.size() == page.actors.size())
      return &old;
  return nullptr;
}

NodeView node_view(const BoardPage& page, std::int64_t now_us) {
  NodeView view;
  view.node = page.node.node;
  view.incarnation = page.node.incarnation;
  view.pid = page.pid;
  view.told = page.node;
  view.life = life_of(page, now_us);
  view.age_us = age(now_us, std::max(page.turn_us, page.node.tick_us));
  view.bytes = page.node.actors_bytes + page.node.payload_bytes;
  view.bytes_peak = page.node.actors_bytes + page.node.payload_peak;
  for (const BoardPage::Thread& thread : page.threads)
    view.threads.push_back({thread.computes, thread.actor, thread.key, age(now_us, thread.since_us)});
  return view;
}

std::vector<EdgeView> edges_of(const Observed& now) {
  std::map<std::pair<Address, Address>, EdgeView> edges;
  for (const auto& [ends, traffic] : now.traffic) {
    const double per_second = 1e6 / static_cast<double>(kTrafficUs);
    edges[ends] = {ends.first,
                   ends.second,
                   static_cast<double>(traffic.messages) * per_second,
                   static_cast<double>(traffic.bytes) * per_second,
                   {}};
  }
  for (const BoardPage& page : now.pages)
    for (const Actor& actor : page.actors)
      for (const Credits& credits : actor.credits) {
        EdgeView& edge = edges[{actor.address, credits.to}];
        edge.from = actor.address;
        edge.to = credits.to;
        edge.credits = credits;
      }
  std::vector<EdgeView> all;
  for (const auto& [ends, edge] : edges) all.push_back(edge);
  if (all.size() <= kEdgesMax) return all;
  std::stable_sort(all.begin(), all.end(),
                   [](const EdgeView& a, const EdgeView& b) { return a.messages_per_second > b.messages_per_second; });
  all.erase(all.begin() + kEdgesMax, all.end());
  return all;
}

void tell_bounds(const Plan& plan, View& view) {
  std::map<Address, std::uint64_t> bounds;
  for (const ActorPlan& actor : plan.actors) bounds[actor.address] = actor.total();
  for (ActorView& actor : view.actors)
    if (const auto bound = bounds.find(actor.address); bound != bounds.end()) actor.bytes_bound = bound->second;
  for (NodeView& node : view.nodes)
    for (const NodePlan& planned : plan.nodes)
      if (planned.node == node.node) node.bytes_bound = planned.actors + planned.messages;
}

// Whoever is stuck is named before the chain of waits is old enough to end there.
void name_the_stuck(View& view) {
  const auto stuck = std::find_if(view.actors.begin(), view.actors.end(),
                                  [](const ActorView& actor) { return actor.state == "stuck"; });
  if (view.why.kind != RootKind::working || stuck == view.actors.end()) return;
  view.why.kind = RootKind::handler;
  view.why.root = fmt::format("{} (node {}) {}, for {:.1f} s", to_string(stuck->address), stuck->node, stuck->doing,
                              static_cast<double>(stuck->doing_age_us) * 1e-6);
}

std::string how_it_ended(const LiveFigures& figures, const ViewOptions& options) {
  if (!figures.finished) return "no process of this run lives; continue with: " + options.resume;
  if (figures.reason == "interrupted") return "the run was interrupted; continue with: " + options.resume;
  if (figures.reason.empty() || figures.reason == "train.steps") return "the run is finished";
  return fmt::format("the run is finished ({})", figures.reason);
}

// Of a live run: nothing stands still.
bool is_healthy(const View& view, const Config& config) {
  if (view.options.source == RunSource::over) return view.figures.finished;
  return !stands_still(view.why, config, view.now_us);
}

}  // namespace

TrafficMap traffic_of(const std::vector<JournalPage>& journals, std::int64_t from_us) {
  TrafficMap traffic;
  for (const JournalPage& page : journals)
    for (auto r = page.records.rbegin(); r != page.records.rend(); ++r) {
      if ((r->entry == JournalEntry::sent ? r->sent_us : r->begin_us) < from_us - kTrafficUs) break;
      if (r->entry != JournalEntry::handled || r->begin_us < from_us || r->from().role == Role::supervisor) continue;
      Traffic& edge = traffic[{r->from(), r->to()}];
      ++edge.messages;
      edge.bytes += r->bytes;
    }
  return traffic;
}

View make_view(const Config& config, const Plan& plan, const Observed& now, const Observed* before,
               const LiveFigures& figures, const ViewOptions& options) {
  View view;
  view.options = options;
  view.name = config.name;
  view.now_us = now.now_us;
  view.figures = figures;
  view.tainted = figures.tainted;
  view.steps = config.train.steps;
  for (const BoardPage& page : now.pages) {
    view.nodes.push_back(node_view(page, now.now_us));
    if (lives(page)) view.data_age_us = std::max(view.data_age_us, view.nodes.back().age_us);
    const BoardPage* const old = same_process(before, page);
    for (std::size_t i = 0; i < page.actors.size(); ++i) {
      ActorView actor = actor_view(page, page.actors[i], now.now_us);
      if (old != nullptr) tell_rates(page.actors[i], old->actors[i], now.now_us - before->now_us, actor);
      if (actor.address.role == Role::conductor) {
        view.step = actor.version;
        view.attempt = actor.attempt;
      }
      view.actors.push_back(std::move(actor));
    }
  }
  std::sort(view.nodes.begin(), view.nodes.end(), [](const NodeView& a, const NodeView& b) { return a.node < b.node; });
  std::sort(view.actors.begin(), view.actors.end(),
            [](const ActorView& a, const ActorView& b) { return a.address < b.address; });
  view.edges = edges_of(now);
  tell_bounds(plan, view);
  if (options.source == RunSource::over)
    view.why.root = how_it_ended(figures, options);
  else
    view.why = explain(config, now.pages, {now.now_us, options.resume});
  name_the_stuck(view);
  view.paused = view.why.kind == RootKind::paused;
  view.healthy = is_healthy(view, config);
  return view;
}

std::optional<ActorOrder> actor_order(const std::string& name) {
  const char* const kNames[] = {"actor", "queue", "oldest", "messages", "busy", "waits", "memory"};
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<ActorOrder>(i);
  return std::nullopt;
}

namespace {

// As people type it: case doesn't count, nor whether a shard is an expert_shard or an expert shard.
std::string plain(std::string text) {
  for (char& c : text) c = c == '_' ? ' ' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// "node 1" is not node 12.
bool is_meant(const ActorView& actor, const std::string& wanted) {
  const std::string node = fmt::format("node {}", actor.node);
  if (node == wanted) return true;
  return plain(fmt::format("{} {} {}", to_string(actor.address), actor.state, actor.doing)).find(wanted) !=
         std::string::npos;
}

}  // namespace

std::vector<const ActorView*> chosen_actors(const View& view, ActorOrder order, const std::string& filter) {
  std::vector<const ActorView*> chosen;
  const std::string wanted = plain(filter);
  for (const ActorView& actor : view.actors)
    if (wanted.empty() || is_meant(actor, wanted)) chosen.push_back(&actor);
  const auto weight = [order](const ActorView& a) {
    switch (order) {
      case ActorOrder::queue:
        return static_cast<double>(a.queue);
      case ActorOrder::oldest:
        return static_cast<double>(a.oldest_age_us);
      case ActorOrder::messages:
        return a.messages_per_second;
      case ActorOrder::busy:
        return a.busy;
      case ActorOrder::waits:
        return a.waits.empty() ? 0.0 : static_cast<double>(a.waits.front().age_us) + 1;
      case ActorOrder::memory:
        return static_cast<double>(a.bytes);
      case ActorOrder::actor:
        break;
    }
    return 0.0;
  };
  std::stable_sort(chosen.begin(), chosen.end(),
                   [&](const ActorView* a, const ActorView* b) { return weight(*a) > weight(*b); });
  return chosen;
}

}  // namespace troupe
