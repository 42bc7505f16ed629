#include "launcher/train.h"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "actors/checkpoint/manifest.h"
#include "actors/checkpoint/state_file.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/model/parameters.h"
#include "launcher/alarm.h"
#include "launcher/bill.h"
#include "launcher/choose_experts.h"
#include "launcher/config.h"
#include "launcher/inspect/run_token.h"
#include "launcher/interrupts.h"
#include "launcher/launch/launch_run.h"
#include "launcher/machine.h"
#include "launcher/metrics_file.h"
#include "launcher/phases.h"
#include "launcher/processes.h"
#include "launcher/program.h"
#include "launcher/progress.h"
#include "launcher/report.h"
#include "launcher/run_folder.h"
#include "launcher/stall.h"
#include "launcher/whole_file.h"
#include "launcher/world.h"

namespace troupe {

namespace {

// One process: the supervisor is this function.
int train_here(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill, bool quiet) {
  start_log("troupe", folder.path() + "/logs/node-0.log", LogLevel::info);
  WorldOptions options;
  options.run_folder = folder.path();
  options.token = run_token(folder.path());
  if (!config.has_rollouts()) options.corpus = open_corpus(config);
  options.tasks = open_tasks(config);
  World world(config, options);
  Progress progress(config, quiet);
  catch_interrupts();
  const StallThread stalls(config, folder);
  Recover first = begin;
  first.allowance_us = bill.allowance_us(monotonic_us());
  world.recover(first);
  const std::string resume = resume_command(folder.path());
  int seen = 0;
  world.run(
      [&](const Report& report) {
        bill.tell(0, world.bill());
        for (const nlohmann::json& line : bill.hear(nlohmann::json::parse(report.json), monotonic_us())) {
          folder.append_metrics(line.dump());
          progress.show(line);
          look_at_alarm(config, folder, line);
        }
      },
      [&] {
        if (interrupts() == seen) return false;
        seen = interrupts();
        if (seen > 1) throw Error("interrupted twice: stopped at once; continue with: {}", resume);
        std::fprintf(stderr, "\ninterrupted: finishing this step and saving (once more to stop at once)\n");
        world.stop("interrupted");
        return false;
      });
  bill.tell(0, world.bill());
  const nlohmann::json last = bill.line(true, monotonic_us());
  folder.append_metrics(last.dump());
  progress.show(last);
  progress.expect_saved(resume);
  if (seen > 0) {
    std::fprintf(stderr, "saved; continue with: %s\n", resume.c_str());
    return kInterrupted;
  }
  progress.summary(folder.path());
  return 0;
}

// The exit code; empty: the host of `lost` is gone.
std::optional<int> train_on(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill,
                            const RunStart& start, std::uint32_t& lost) try {
  const auto& [first, last] = parse_ports(config.launch.ports);
  Launch launch(*start.launch,
                {run_token(folder.path()), numbers_digest(config), config.layout.interface, first, last});
  if (!start.quiet)
    std::printf("%slogs: %s/logs; look at it with: troupe inspect %s\n",
                placement_text(config, launch.places()).c_str(), folder.path().c_str(), folder.path().c_str());
  std::fflush(stdout);
  return train_in_processes(config, folder, begin, bill, start.quiet, &launch);
} catch (const HostLost& gone) {
  lost = gone.node;
  return std::nullopt;
}

// With fewer hosts the same actors share those that are left: no key that numbers depend on changes.
int train_there(const Config& config, RunFolder& folder, const Recover& begin, RunBill& bill, const RunStart& start) {
  write_whole_file(folder.path() + "/launch", start.launch->command + "\n");
  std::uint32_t lost = 0;
  if (const auto code = train_on(config, folder, begin, bill, start, lost)) return *code;
  Config fewer = config;
  fewer.layout.nodes = config.layout.nodes - 1;
  auto request = std::make_shared<LaunchRequest>(*start.launch);
  std::fprintf(stderr, "\n%s can't be reached, and no spare host is left; going on with %d processes\n",
               request->places[lost].c_str(), fewer.layout.nodes);
  request->places.erase(request->places.begin() + lost);
  request->spares.clear();
  RunStart again = start;
  again.launch = request;
  folder.begin(fewer);
  const Recover from = starting_point(fewer, folder.path(), true);
  RunBill rest(fewer, monotonic_us());
  rest.go_on(folder.path() + "/metrics.jsonl", from.version);
  return train_there(fewer, folder, from, rest, again);
}

// Experts that were chosen when the run began stay chosen.
Config as_begun(const Config& before, const Config& now) {
  Config same = now;
  if (same.chooses_experts()) same.train.experts = before.train.experts;
  return same;
}

// Opened once before the actors do, so that of weights that don't fit always the same tensor is named.
void expect_weights(const Config& config, const std::string& folder) {
  Restore weights;
  weights.path = folder;
  weights.weights_only = true;
  const StateFile fits(config, model_parameters(config.model), weights);
}

// Damaged ones behind it are set aside: they would count as the newest, of which the last few are kept.
std::optional<CheckpointEntry> last_whole_checkpoint(const std::string& run_folder) {
  auto all = list_checkpoints(run_folder);
  for (; !all.empty(); all.pop_back()) {
    const std::string& path = all.back().path;
    const std::string problem = verify_checkpoint(path, true);
    if (problem.empty()) return all.back();
    const bool first = all.size() == 1;
    std::error_code failed;
    std::filesystem::remove_all(path + ".damaged", failed);
    std::filesystem::rename(path, path + ".damaged", failed);
    if (failed) throw Error("{}: is damaged and can't be set aside: {}; remove it", path, failed.message());
    std::fprintf(stderr, "warning: %s: %s; it is now %s.damaged, %s\n", path.c_str(), problem.c_str(), path.c_str(),
                 first ? "and there is none before it: the run begins again" : "trying the one before");
  }
  return std::nullopt;
}

}  // namespace

void check_resumable(const Config& before, const Config& now, const std::string& folder) {
  const std::vector<std::string> changed = changed_numbers(before, as_begun(before, now));
  if (changed.empty()) return;
  std::string list;
  for (const std::string& c : changed) list += (list.empty() ? "" : "; ") + c;
  throw Error(
      "{}: can't resume as the same run: {}; undo the change, or start a new run with train.start_from = \"{}\"",
      folder, list, folder);
}

void look_at_alarm(const Config& config, RunFolder& folder, const nlohmann::json& line) {
  if (!config.has_rollouts() || line.at("kind") != "answers") return;
  bool told = false;
  for_each_metric(folder.path() + "/metrics.jsonl",
                  [&](const std::string& kind, const nlohmann::json&) { told = told || kind == "alarm"; });
  if (told) return;
  const RewardAlarm alarm = reward_alarm(read_reward_series(folder.path() + "/metrics.jsonl"));
  if (!alarm.raised) return;
  folder.append_metrics(nlohmann::json{{"kind", "alarm"}, {"sentence", alarm.sentence}}.dump());
  std::fprintf(stderr, "\nwarning: %s\n", alarm.sentence.c_str());
}

Recover starting_point(const Config& config, const std::string& run_folder, bool resume) {
  Recover begin;
  // None: killed before the first checkpoint, the same beginning again.
  if (const auto last = resume ? last_whole_checkpoint(run_folder) : std::nullopt) {
    begin.version = last->version;
    begin.path = last->path;
    return begin;
  }
  if (!config.train.start_from.empty()) {
    begin.path = resolve_checkpoint(config.train.start_from);
    begin.weights_only = true;
    expect_weights(config, begin.path);
  }
  return begin;
}

int train_run(const Config& as_written, const std::string& out, const RunStart& start) {
  const std::int64_t begin_us = monotonic_us();
  Config given = as_written;
  const bool fresh = start.resume && !std::filesystem::exists(out + "/config.toml");
  const bool resume = start.resume && !fresh;
  RunFolder folder(out, resume);
  if (resume) {
    const Config before = load_run_config(out);
    check_resumable(before, given, out);
    given = as_begun(before, given);
  }
  Config config = given;
  resolve_machine(config);
  if (!start.launch) expect_device(config);  // elsewhere each node looks for its own
  if (!start.weights.empty()) config.train.start_from = start.weights;
  const Recover begin = starting_point(config, out, start.resume);
  std::optional<ChosenExperts> chosen;
  if (config.chooses_experts()) {
    chosen = choose_experts(config, begin);
    config.train.experts = given.train.experts = chosen->names;
    if (!start.quiet) std::fputs(chosen->text.c_str(), stdout);
  }
  folder.begin(given);
  if (chosen) folder.append_metrics(chosen->json);
  RunBill bill(config, begin_us);
  bill.go_on(out + "/metrics.jsonl", begin.version);  // a teacher was paid before the run began
  if (!begin.path.empty())
    std::printf("starting at step %lld from %s\n", static_cast<long long>(begin.version), begin.path.c_str());
  if (start.launch) return train_there(config, folder, begin, bill, start);
  if (start.tells_places && !start.quiet) std::fputs(placement_text(config, {}).c_str(), stdout);
  return config.layout.nodes == 1 ? train_here(config, folder, begin, bill, start.quiet)
                                  : train_in_processes(config, folder, begin, bill, start.quiet, nullptr);
}

int train(const TrainOptions& options) {
  const Recipe recipe = load_recipe(options.config_path, options.sets);
  const std::string out = options.out.empty() ? "runs/" + recipe.name : options.out;
  const RunStart start{options.resume, options.quiet, "", options.tells_places, options.launch};
  if (const std::string& kind = recipe.phases[0].kind; !recipe.has_phases && (kind == "evaluate" || kind == "distill"))
    throw Error(
        "{}: kind is \"{}\", which trains no model by itself: make it a [[phase]] behind one that does, or name "
        "another kind",
        options.config_path, kind);
  if (recipe.has_phases) return train_phases(recipe, out, start);
  if (options.resume && !std::filesystem::exists(out + "/config.toml"))
    throw Error("{}: there is no run to resume (no config.toml); start it without --resume", out);
  const int code = train_run(recipe.phases[0], out, start);
  if (code == 0) write_report(recipe, out);
  return code;
}

}  // namespace troupe
