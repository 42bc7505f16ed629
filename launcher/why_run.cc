// `troupe why RUN`: reads the boards of a run's folder and prints the chain of waits.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "launcher/board_file.h"
#include "launcher/loop.h"
#include "launcher/metrics_file.h"
#include "launcher/program.h"
#include "launcher/run_folder.h"
#include "launcher/tools.h"
#include "launcher/why.h"

namespace troupe {

namespace {

// The version that metrics.jsonl ends with, when the run is finished: its bill comes after that.
std::optional<std::int64_t> finished_at(const std::string& run) {
  std::optional<std::int64_t> version;
  for_each_metric(run + "/metrics.jsonl", [&](const std::string& kind, const nlohmann::json& line) {
    if (kind == "finished") version = line.value("version", std::int64_t{0});
    if (kind == "step") version.reset();
  });
  return version;
}

bool lives(const std::vector<BoardPage>& pages) {
  for (const BoardPage& page : pages)
    if (page.life != Life::dead && page.node.closed == 0) return true;
  return false;
}

}  // namespace

int why(const std::string& path) {
  const std::string run = current_run(path);
  const Config config = load_run_config(run);
  const std::vector<BoardPage> pages = read_boards(run, config.layout.nodes);
  const std::string resume = resume_command(path);
  if (lives(pages)) {
    std::printf("%s", explain(config, pages, {monotonic_us(), resume}).text().c_str());
  } else if (const auto version = finished_at(run)) {
    std::printf("%s: nobody waits: the run is finished, at step %lld\n", run.c_str(), static_cast<long long>(*version));
  } else if (pages.empty()) {
    std::printf("%s: nobody waits: no process of this run has started; start it, or continue with: %s\n", run.c_str(),
                resume.c_str());
  } else {
    std::printf("%s: nobody waits: no process of this run lives any more; continue with: %s\n", run.c_str(),
                resume.c_str());
  }
  return 0;
}

}  // namespace troupe
