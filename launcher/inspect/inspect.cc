// `troupe inspect RUN`: the full screen; or one look, as text or JSON.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "launcher/inspect/run_watcher.h"
#include "launcher/inspect/terminal.h"
#include "launcher/inspect/view_text.h"
#include "launcher/tools.h"

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

}  // namespace

int inspect(const InspectOptions& options) {
  RunWatcher watcher(options.run);
  ViewPart part{.order = actor_order(options.sort).value_or(ActorOrder::actor), .filter = options.filter};
  if (!options.once && !options.json && has_full_screen())
    return show_full_screen(watcher, part.order, part.filter) ? 0 : kUnhealthy;
  if (options.limit > 0) part.limit = static_cast<std::size_t>(options.limit);
  View view = watcher.look();
  if (view.options.source == RunSource::live) {
    usleep(kRatesUs);
    view = watcher.look();
  }
  if (options.json)
    std::printf("%s\n", view_json(view, part).dump().c_str());
  else
    print_once(view, part);
  return view.healthy ? 0 : kUnhealthy;
}

}  // namespace troupe
