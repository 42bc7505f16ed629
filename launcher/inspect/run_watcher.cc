#include "launcher/inspect/run_watcher.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "launcher/board_file.h"
#include "launcher/journal_file.h"
#include "launcher/loop.h"
#include "launcher/machine.h"
#include "launcher/program.h"
#include "launcher/run_folder.h"

namespace troupe {

namespace {

constexpr std::uint64_t kRecordsMax = 100'000;  // of a node, looked at for rates

// The plan asks no device: of a run on another machine it is that machine's.
Config resolved(Config config) {
  if (config.device.kind == "auto") config.device.kind = "cpu";
  resolve_machine(config);
  return config;
}

bool anybody_lives(const std::vector<BoardPage>& pages) {
  return std::any_of(pages.begin(), pages.end(),
                     [](const BoardPage& page) { return page.life != Life::dead && page.node.closed == 0; });
}

}  // namespace

RunWatcher::RunWatcher(const std::string& path)
    : run_(current_run(path)),
      config_(load_run_config(run_)),
      plan_(make_plan(resolved(config_), 0)),
      options_{.run = run_, .resume = resume_command(path)},
      metrics_(run_ + "/metrics.jsonl") {}

View RunWatcher::look() {
  Observed now;
  now.pages = read_boards(run_, config_.layout.nodes);
  now.now_us = monotonic_us();
  options_.source = anybody_lives(now.pages) ? RunSource::live : RunSource::over;
  if (options_.source == RunSource::live)
    now.traffic = traffic_of(read_last_journals(run_, kRecordsMax), now.now_us - kTrafficUs);
  View view = make_view(config_, plan_, now, before_ ? &*before_ : nullptr, metrics_.look(), options_);
  before_ = std::move(now);
  return view;
}

std::vector<JournalPage> RunWatcher::journals(std::uint64_t most) { return read_journals(run_, most); }

std::string RunWatcher::control(const Control&) { throw Error("{}: nobody may control this run from here", run_); }

}  // namespace troupe
