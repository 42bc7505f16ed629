// View: what the inspector shows of a run at a moment, as values: of a live run, of one that is over, of a simulated
// world. A pure function of what was observed, so that terminal, page, scripts and Prometheus show the same.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/board.h"
#include "actors/config.h"
#include "actors/journal.h"
#include "launcher/inspect/figures.h"
#include "launcher/plan.h"
#include "launcher/why.h"

namespace troupe {

enum class RunSource : std::uint8_t { live, over, simulated };

// Messages from one actor to another in some time.
struct Traffic {
  std::uint64_t messages = 0, bytes = 0;
};
using TrafficMap = std::map<std::pair<Address, Address>, Traffic>;
// Of what was handled from `from_us` on. Without what a node tells its own actors (segments, disk, judges).
TrafficMap traffic_of(const std::vector<JournalPage>& journals, std::int64_t from_us);

// What was seen at a time of the run's clock.
struct Observed {
  std::int64_t now_us = 0;
  std::vector<BoardPage> pages;
  TrafficMap traffic;  // of the last kTrafficUs
};
constexpr std::int64_t kTrafficUs = 1'000'000;

struct ViewOptions {
  std::string run;
  RunSource source = RunSource::live;
  bool can_control = false;
  std::string resume;  // the command that continues the run
};

struct ActorView {
  Address address;
  std::uint32_t node = 0;
  std::string state;  // handling, computing, waiting, idle, stuck
  std::string doing;
  std::int64_t doing_age_us = 0;
  std::uint64_t queue = 0, handled = 0, segments = 0, bytes = 0, bytes_bound = 0;
  std::int64_t oldest_age_us = 0;
  double messages_per_second = 0, busy = 0, handling = 0, waiting = 0;  // shares of the time since the last look
  std::int64_t version = 0;
  std::uint32_t attempt = 0;
  Credits credits;  // all together
  std::vector<Credits> channels;
  struct Waiting {
    std::string what, item;
    Address holder;
    std::int64_t age_us = 0;
  };
  std::vector<Waiting> waits;  // the oldest first
  bool waits_more = false;
};

struct NodeView {
  std::uint32_t node = 0, incarnation = 0;
  std::int64_t pid = 0, age_us = 0, clock_offset_us = 0;
  std::string life;  // running, stopped, dead, ended, silent
  BoardNode told;
  std::uint64_t bytes = 0, bytes_peak = 0, bytes_bound = 0;
  struct Computing {
    bool is = false;
    Address actor;
    SegmentKey key;
    std::int64_t age_us = 0;
  };
  std::vector<Computing> threads;
};

struct EdgeView {
  Address from, to;
  double messages_per_second = 0, bytes_per_second = 0;
  std::optional<Credits> credits;
};

constexpr std::size_t kEdgesMax = 2000;

struct View {
  ViewOptions options;
  std::string name;
  bool paused = false;
  std::string tainted;
  std::int64_t now_us = 0, data_age_us = 0;
  std::int64_t step = 0, steps = 0;
  std::uint32_t attempt = 0;
  LiveFigures figures;
  bool healthy = true;
  Explanation why;
  std::vector<NodeView> nodes;
  std::vector<ActorView> actors;
  std::vector<EdgeView> edges;
  // Of a simulated world: messages handled, and of those under way the oldest.
  std::uint64_t delivered = 0, in_flight_count = 0;
  std::vector<Envelope> in_flight;
};

// before: an earlier look, for rates; may be null.
View make_view(const Config& config, const Plan& plan, const Observed& now, const Observed* before,
               const LiveFigures& figures, const ViewOptions& options);

enum class ActorOrder : std::uint8_t { actor, queue, oldest, messages, busy, waits, memory };
std::optional<ActorOrder> actor_order(const std::string& name);
// Those whose name, state or doings hold the text (case doesn't count), or that are on "node N"; in that order, the most
// first.
std::vector<const ActorView*> chosen_actors(const View& view, ActorOrder order, const std::string& filter);

// The form that scripts and the page read. Of the actors those from `offset` on, at most `limit`.
struct ViewPart {
  ActorOrder order = ActorOrder::actor;
  std::string filter;
  std::size_t offset = 0, limit = 1'000'000;
};
nlohmann::json view_json(const View& view, const ViewPart& part = {});
const char* name_of(SegmentClass segment_class);  // "weight_gradient", as JSON says it

}  // namespace troupe
