// `troupe inspect RUN`: the full screen; or one look, as text or JSON.
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "launcher/inspect/asked_nodes.h"
#include "launcher/inspect/control_json.h"
#include "launcher/inspect/inspect_web.h"
#include "launcher/inspect/run_token.h"
#include "launcher/inspect/run_watcher.h"
#include "launcher/inspect/simulated_world.h"
#include "launcher/inspect/terminal.h"
#include "launcher/inspect/view_text.h"
#include "launcher/tools.h"
#include "launcher/whole_file.h"

namespace troupe {

namespace {

constexpr useconds_t kRatesUs = 250'000;  // between two looks, for what is told per second

void print_once(const View& view, const ViewPart& part) {
  for (const std::string& line : head_lines(view)) std::printf("%s\n", line.c_str());
  if (!view.healthy && view.options.source == RunSource::live)
    for (const std::string& line : why_lines(view)) std::printf("  %s\n", line.c_str());
  std::printf("\n%s\n", actors_title().c_str());
  const auto chosen = chosen_actors(view, part.order, part.filter);
  for (std::size_t i = 0; i < std::min(part.limit, chosen.size()); ++i)
    std::printf("%s\n", actor_line(*chosen[i]).c_str());
  if (chosen.size() > part.limit) std::printf("and %zu more\n", chosen.size() - part.limit);
}

bool is_address(const std::string& text) {
  return !std::filesystem::exists(text) && text.find(':') != std::string::npos && text.find('/') == std::string::npos;
}

std::unique_ptr<InspectSource> open_source(const InspectOptions& options) {
  if (!options.simulate.empty())
    return std::make_unique<SimulatedWorld>(SimulatedOptions{options.simulate, options.sets, options.seed});
  if (options.run.empty()) throw Error("inspect needs a run's folder, addresses of nodes, or --simulate CONFIG");
  const bool controls = options.allow_control || !options.order.empty();
  if (!is_address(options.run)) return std::make_unique<RunWatcher>(options.run, controls);
  const std::string token = options.token.empty() ? "" : read_whole_file(options.token).substr(0, 2 * kTokenBytes);
  return std::make_unique<AskedNodes>(options.run, token, controls);
}

// One of kInspectOrders: what the page asks for, of scripts.
Control order_of(const std::string& text) {
  const std::size_t equals = text.find('=');
  const auto asked_by = [&](const std::string& order) {
    return order.substr(0, order.find('=')) == text.substr(0, equals);
  };
  if (std::none_of(kInspectOrders.begin(), kInspectOrders.end(), asked_by))
    throw Error("--do {}: an order is one of {}", text, fmt::join(kInspectOrders, ", "));
  nlohmann::json asked{{"do", text.substr(0, equals)}};
  if (equals != std::string::npos) {
    const auto value = nlohmann::json::parse(text.substr(equals + 1), nullptr, false);
    if (value.is_discarded()) throw Error("--do {}: what follows the = is neither a number nor JSON", text);
    asked[value.is_object() ? "message" : "node"] = value;
  }
  return control_of(asked.dump());
}

}  // namespace

int inspect(const InspectOptions& options) {
  const std::unique_ptr<InspectSource> source = open_source(options);
  if (options.web) return inspect_web(options, *source);
  ViewPart part{.order = actor_order(options.sort).value_or(ActorOrder::actor), .filter = options.filter};
  if (!options.once && !options.json && options.order.empty() && has_full_screen())
    return show_full_screen(*source, part.order, part.filter) ? 0 : kUnhealthy;
  if (options.limit > 0) part.limit = static_cast<std::size_t>(options.limit);
  View view = source->look();
  if (!options.order.empty()) {
    std::printf("%s\n", source->control(order_of(options.order)).c_str());
    return 0;
  }
  if (view.options.source == RunSource::live) {
    usleep(kRatesUs);
    view = source->look();
  }
  if (options.json)
    std::printf("%s\n", view_json(view, part).dump().c_str());
  else
    print_once(view, part);
  return view.healthy ? 0 : kUnhealthy;
}

}  // namespace troupe
