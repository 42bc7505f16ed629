// The view as JSON: ages and times in microseconds, shares of one, names as people read them. Only ever appended to.
#include <algorithm>

#include "launcher/inspect/view.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr int kFormat = 1;

const char* name_of(RunSource source) {
  return source == RunSource::live ? "live" : source == RunSource::over ? "over" : "simulated";
}

const char* name_of(RootKind kind) {
  const char* const kNames[] = {"dead", "stopped", "handler", "silent",   "link",   "segment", "completion",
                                "disk", "jury",    "lost",    "launcher", "circle", "paused",  "working"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string role_of(const Address& address) {
  const std::string name = to_string(address);
  return name.substr(0, name.rfind(' '));
}

json credits_json(const Credits& credits) { return {{"free", credits.free}, {"of", credits.of}}; }

// What the last lines of the metrics say; absent: not told.
json figures_json(const LiveFigures& figures, std::int64_t steps) {
  json out = json::object();
  const json& step = figures.step;
  if (!step.is_object()) return out;
  for (const char* key : {"loss", "reward", "accuracy", "tokens_per_second", "mfu", "cost_dollars", "seconds",
                          "step_seconds", "gradient_norm", "worst_load"})
    if (step.contains(key)) out[key] = step[key];
  const double left = static_cast<double>(steps - 1) - step.value("step", 0.0);
  if (step.contains("step_seconds") && step["step_seconds"].is_number() && left >= 0)
    out["seconds_left"] = left * step["step_seconds"].get<double>();
  return out;
}

json peers_json(const BoardNode& node, std::int64_t now_us) {
  json peers = json::array();
  for (std::size_t i = 0; i < std::min<std::size_t>(node.peers_count, kBoardPeersMax); ++i) {
    const BoardPeer& p = node.peers[i];
    json peer{{"node", p.node},
              {"heard_age_us", std::max<std::int64_t>(0, now_us - p.heard_us)},
              {"unacknowledged", p.unacknowledged},
              {"early", p.early}};
    peer["missing_age_us"] =
        p.missing_since_us > 0 ? json(std::max<std::int64_t>(0, now_us - p.missing_since_us)) : json(nullptr);
    peers.push_back(std::move(peer));
  }
  return peers;
}

json node_json(const NodeView& node, std::int64_t now_us) {
  json computing = json::array(), bill = json::object();
  for (std::size_t i = 0; i < node.threads.size(); ++i) {
    const NodeView::Computing& c = node.threads[i];
    if (!c.is) continue;
    computing.push_back({{"thread", i},
                         {"actor", to_string(c.actor)},
                         {"what", name_of(c.key.segment_class)},
                         {"step", c.key.step},
                         {"microbatch", c.key.microbatch},
                         {"layer", c.key.layer},
                         {"age_us", c.age_us}});
  }
  for (std::size_t bin = 0; bin < kBins; ++bin)
    bill[to_string(static_cast<Bin>(bin))] = static_cast<double>(node.told.bill_us[bin]) * 1e-6;
  return {{"node", node.node},
          {"incarnation", node.incarnation},
          {"pid", node.pid},
          {"life", node.life},
          {"age_us", node.age_us},
          {"clock_offset_us", node.clock_offset_us},
          {"threads", node.threads.size()},
          {"ready", node.told.ready},
          {"pending", node.told.pending},
          {"disk_jobs", node.told.disk_jobs},
          {"memory", {{"bytes", node.bytes}, {"peak", node.bytes_peak}, {"bound", node.bytes_bound}}},
          {"peers", peers_json(node.told, now_us)},
          {"computing", std::move(computing)},
          {"bill", std::move(bill)}};
}

json actor_json(const ActorView& a) {
  json waits = json::array(), channels = json::array();
  for (const ActorView::Waiting& w : a.waits)
    waits.push_back({{"what", w.what}, {"holder", to_string(w.holder)}, {"item", w.item}, {"age_us", w.age_us}});
  for (const Credits& c : a.channels) {
    channels.push_back(credits_json(c));
    channels.back()["to"] = to_string(c.to);
  }
  return {{"actor", to_string(a.address)},
          {"role", role_of(a.address)},
          {"index", a.address.index},
          {"node", a.node},
          {"state", a.state},
          {"doing", a.doing},
          {"doing_age_us", a.doing_age_us},
          {"queue", a.queue},
          {"oldest_age_us", a.oldest_age_us},
          {"handled", a.handled},
          {"messages_per_second", a.messages_per_second},
          {"busy", a.busy},
          {"handling", a.handling},
          {"waiting", a.waiting},
          {"version", a.version},
          {"attempt", a.attempt},
          {"segments", a.segments},
          {"memory", {{"bytes", a.bytes}, {"bound", a.bytes_bound}}},
          {"credits", credits_json(a.credits)},
          {"channels", std::move(channels)},
          {"waits", std::move(waits)},
          {"waits_more", a.waits_more}};
}

json edge_json(const EdgeView& e) {
  json edge{{"from", to_string(e.from)},
            {"to", to_string(e.to)},
            {"messages_per_second", e.messages_per_second},
            {"bytes_per_second", e.bytes_per_second}};
  if (e.credits) edge["credits"] = credits_json(*e.credits);
  return edge;
}

json places_json(const View& view) {
  json places = json::array();
  for (const ActorView& a : view.actors) places.push_back({to_string(a.address), a.node, a.state});
  return places;
}

json why_json(const View& view) {
  json chain = json::array();
  for (const Explanation::Link& link : view.why.chain)
    chain.push_back({{"from", to_string(link.who)},
                     {"to", to_string(link.wait.holder)},
                     {"what", to_string(link.wait.what)},
                     {"item", describe(link.wait.item)},
                     {"age_us", std::max<std::int64_t>(0, view.now_us - link.wait.since_us)}});
  return {{"links", view.why.links}, {"root", view.why.root}, {"kind", name_of(view.why.kind)}, {"chain", chain}};
}

json bill_json(const json& line) {
  if (!line.is_object()) return nullptr;
  json worst = json::object();
  for (const auto& [bin, one] : line.at("worst").items()) worst[bin] = one.at("holder");
  return {{"bins", line.at("thread_seconds")},
          {"thread_seconds", line.at("total_thread_seconds")},
          {"cost_dollars", line.at("cost_dollars")},
          {"worst", std::move(worst)}};
}

json experts_json(const LiveFigures& figures) {
  json steps = json::array(), layers = json::array();
  if (figures.experts.empty()) return {{"steps", steps}, {"layers", layers}};
  for (const std::int64_t layer : figures.experts.back().layers)
    layers.push_back({{"layer", layer}, {"counts", json::array()}});
  for (const LiveFigures::ExpertRows& step : figures.experts) {
    if (step.layers != figures.experts.back().layers) continue;
    steps.push_back(step.step);
    for (std::size_t i = 0; i < step.rows.size(); ++i) layers[i]["counts"].push_back(step.rows[i]);
  }
  return {{"steps", std::move(steps)}, {"layers", std::move(layers)}};
}

json edges_json(const View& view) {
  json edges = json::array();
  for (const EdgeView& edge : view.edges) edges.push_back(edge_json(edge));
  return edges;
}

// [id, kind, from, to, due_us, step, microbatch, layer] of each; when it is due nobody knows.
json world_json(const View& view) {
  json in_flight = json::array();
  for (const Envelope& e : view.in_flight) {
    const WorkKey key = work_of(e.message).value_or(WorkKey{.step = -1, .microbatch = -1, .layer = -1});
    in_flight.push_back({std::to_string(e.id), kind_of(e.message), to_string(e.from), to_string(e.to), nullptr,
                         key.step, key.microbatch, key.layer});
  }
  return {
      {"delivered", view.delivered}, {"in_flight_count", view.in_flight_count}, {"in_flight", std::move(in_flight)}};
}

}  // namespace

const char* name_of(SegmentClass segment_class) {
  const char* const kNames[] = {"apply", "backward", "forward", "weight_gradient", "evaluate"};
  const auto index = static_cast<std::size_t>(segment_class);
  return index < std::size(kNames) ? kNames[index] : "?";
}

json view_json(const View& view, const ViewPart& part) {
  const auto chosen = chosen_actors(view, part.order, part.filter);
  json nodes = json::array(), actors = json::array();
  for (const NodeView& node : view.nodes) nodes.push_back(node_json(node, view.now_us));
  const std::size_t end = std::min(chosen.size(), part.offset + std::min(part.limit, chosen.size()));
  for (std::size_t i = part.offset; i < end; ++i) actors.push_back(actor_json(*chosen[i]));
  json all{{"format", kFormat},
           {"run", view.options.run},
           {"name", view.name},
           {"source", name_of(view.options.source)},
           {"can_control", view.options.can_control},
           {"paused", view.paused},
           {"tainted", view.tainted},
           {"now_us", view.now_us},
           {"data_age_us", view.data_age_us},
           {"step", view.step},
           {"steps", view.steps},
           {"attempt", view.attempt},
           {"figures", figures_json(view.figures, view.steps)},
           {"healthy", view.healthy},
           {"verdict", view.why.root},
           {"nodes", std::move(nodes)},
           {"actors_count", view.actors.size()},
           {"actors_matching", chosen.size()},
           {"actors", std::move(actors)},
           {"places", places_json(view)},
           {"edges", edges_json(view)},
           {"why", why_json(view)},
           {"bill", bill_json(view.figures.bill)},
           {"experts", experts_json(view.figures)}};
  if (view.options.source == RunSource::simulated) all["world"] = world_json(view);
  return all;
}

}  // namespace troupe
