#include "launcher/inspect/run_watcher.h"

#include <signal.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "launcher/board_file.h"
#include "launcher/inspect/live_order.h"
#include "launcher/inspect/node_client.h"
#include "launcher/inspect/run_token.h"
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

RunWatcher::RunWatcher(const std::string& path, bool can_control)
    : run_(current_run(path)),
      config_(load_run_config(run_)),
      plan_(make_plan(resolved(config_), 0)),
      options_{.run = run_, .source = {}, .can_control = can_control, .resume = resume_command(path)},
      metrics_(run_ + "/metrics.jsonl") {}

View RunWatcher::look() {
  Observed now;
  now.pages = read_boards(run_, config_.layout.nodes);
  now.now_us = monotonic_us();
  options_.source = anybody_lives(now.pages) ? RunSource::live : RunSource::over;
  if (options_.source == RunSource::live) now.traffic = traffic(now.now_us);
  View view = make_view(config_, plan_, now, before_ ? &*before_ : nullptr, metrics_.look(), options_);
  before_ = std::move(now);
  return view;
}

// Of each journal what came since a look that is old enough, and no more.
TrafficMap RunWatcher::traffic(std::int64_t now_us) {
  while (marks_.size() > 1 && marks_[1].at_us <= now_us - kTrafficUs) marks_.pop_front();
  const bool old = !marks_.empty() && marks_.front().at_us <= now_us - kTrafficUs;
  const auto journals =
      read_last_journals(run_, old ? marks_.front().written : std::map<std::uint32_t, std::uint64_t>{}, kRecordsMax);
  Mark& mark = marks_.emplace_back();
  mark.at_us = now_us;
  for (const JournalPage& page : journals) mark.written[page.owner.node] = page.written;
  return traffic_of(journals, now_us - kTrafficUs);
}

std::vector<JournalPage> RunWatcher::journals(std::uint64_t most) { return read_journals(run_, most); }

const BoardPage& RunWatcher::page_of(std::uint32_t node) const {
  if (before_)
    for (const BoardPage& page : before_->pages)
      if (page.node.node == node && page.life != Life::dead) return page;
  throw Error("{}: there is no process of node {}", run_, node);
}

// A process that is stopped answers nothing; it is killed all the same.
std::string RunWatcher::control(const Control& control) {
  if (!options_.can_control) throw Error("{}: nobody may control this run from here: give --allow-control", run_);
  const auto [node, what] = live_order(control, config_);
  const BoardPage& page = page_of(node);
  if (page.life == Life::stopped) {
    if (!std::holds_alternative<KillNode>(what))
      throw Error("{}: the process of node {} is stopped and takes no order", run_, node);
    if (kill(static_cast<pid_t>(page.pid), SIGKILL) != 0) throw Error("process {} can't be killed", page.pid);
    return fmt::format("node {} is killed", node);
  }
  if (page.port == 0) throw Error("{}: node {} answers no inspector (inspect.listen)", run_, node);
  return NodeClient(fmt::format("127.0.0.1:{}", page.port), run_token(run_)).obey(node, what);
}

std::string RunWatcher::token() { return run_token(run_); }

}  // namespace troupe
