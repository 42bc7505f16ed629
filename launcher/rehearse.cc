// troupe rehearse CONFIG: what a layout's step takes, and its memory, on this machine and over the links that the
// configuration shapes.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/interrupts.h"
#include "launcher/machine.h"
#include "launcher/progress.h"
#include "launcher/simulation/rehearsal.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

namespace fs = std::filesystem;

// A folder that is gone with it.
struct Scratch {
  Scratch() : path(fmt::format("{}/troupe-rehearsal-{}", fs::temp_directory_path().string(), getpid())) {}
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  Scratch(const Scratch&) = delete;
  std::string path;
};

// One passing line on a terminal. Of several threads: the one that is farthest speaks.
class Ahead {
 public:
  Ahead(std::int64_t steps, double seconds_max) : steps_(steps), seconds_max_(seconds_max), shown_(isatty(2) != 0) {}
  ~Ahead() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  void heard(std::int64_t step) {
    const std::lock_guard lock(mutex_);
    if (!shown_ || step <= step_) return;
    step_ = step;
    const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const double left = spent * static_cast<double>(steps_ - step) / static_cast<double>(step);
    fmt::print(stderr, "\r\033[Krehearsed {} of {} steps, {} left", step, steps_,
               human_time(std::clamp(seconds_max_ - spent, 0.0, left)));
    std::fflush(stderr);
  }

 private:
  const std::int64_t steps_;
  const double seconds_max_;
  const bool shown_;
  std::mutex mutex_;
  std::int64_t step_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void refuse_what_is_not_rehearsed(const Config& config, const std::string& path) {
  if (config.device.kind == "cuda")
    throw Error("{}: device.kind is \"cuda\", and a rehearsal times a processor's kernels: --set device.kind=cpu",
                path);
  if (config.kind == "pretrain" || config.kind == "sft") return;
  throw Error("{}: kind is \"{}\", and a rehearsal knows the steps of \"pretrain\" and \"sft\" alone", path,
              config.kind);
}

double tokens_a_step(const Config& config) {
  return static_cast<double>(config.train.batch_sequences) * config.train.sequence_length;
}

double mib(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

nlohmann::json as_json(const Config& config, const Rehearsal& r) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const RehearsedNode& node : r.nodes)
    nodes.push_back({{"peak_mib", mib(node.peak())},
                     {"actors_mib", mib(node.actors)},
                     {"program_mib", mib(node.program)},
                     {"journal_mib", mib(node.journal)},
                     {"data_mib", mib(node.data)}});
  return {{"config", config.name},
          {"steps", r.step_seconds.size()},
          {"step_seconds", r.quantile(0.5)},
          {"quartiles", {r.quantile(0.25), r.quantile(0.75)}},
          {"tokens_per_second", tokens_a_step(config) / r.quantile(0.5)},
          {"thread_seconds", r.bins},
          {"frames_a_step", r.frames_a_step},
          {"nodes", nodes},
          {"early", r.early},
          {"took_seconds", r.took_s}};
}

std::string bins_text(const Rehearsal& r) {
  std::vector<std::pair<double, std::string>> bins;
  double all = 0;
  for (const auto& [bin, seconds] : r.bins) {
    all += seconds;
    bins.emplace_back(seconds, bin);
  }
  std::sort(bins.rbegin(), bins.rend());
  std::string text;
  for (const auto& [seconds, bin] : bins)
    if (seconds > 0.005 * all) text += fmt::format("{}{} {:.0f} %", text.empty() ? "" : ", ", bin, 100 * seconds / all);
  return text;
}

std::string as_text(const Config& config, const Rehearsal& r) {
  const double seconds = r.quantile(0.5);
  std::string text = fmt::format(
      "{}: {} nodes of {} threads, {} stages, {} expert shards a stage, {} replicas\n"
      "step {:.4g} ms (quartiles {:.4g} to {:.4g}), {:.4g} tokens/s; threads: {}\n",
      config.name, config.layout.nodes, config.device.threads, config.layout.stages, config.layout.expert_shards,
      config.layout.replicas, 1e3 * seconds, 1e3 * r.quantile(0.25), 1e3 * r.quantile(0.75),
      tokens_a_step(config) / seconds, bins_text(r));
  for (std::size_t i = 0; i < r.nodes.size(); ++i)
    text += fmt::format(
        "node {}: peak {:.0f} MiB = actors and messages {:.1f} + program {:.1f} + journal {:.1f} + data {:.1f}\n", i,
        mib(r.nodes[i].peak()), mib(r.nodes[i].actors), mib(r.nodes[i].program), mib(r.nodes[i].journal),
        mib(r.nodes[i].data));
  if (r.early) text += "its time was over: what the last evaluation and answers take is not in it; raise --seconds\n";
  return text + fmt::format("from {} steps in virtual time, computed {} times side by side in {:.0f} s\n",
                            r.step_seconds.size() / static_cast<std::size_t>(r.worlds), r.worlds, r.took_s);
}

}  // namespace

int rehearse(const RehearseOptions& given) {
  RehearsalOptions options;
  options.config = load_config(given.config_path, given.sets);
  resolve_machine(options.config);
  refuse_what_is_not_rehearsed(options.config, given.config_path);
  start_log("rehearse", "", LogLevel::error);
  catch_interrupts();
  const Scratch scratch;
  options.scratch = scratch.path;
  options.cores = usable_cores();
  options.nodes_a_machine = given.apart ? 1 : options.config.layout.nodes;
  options.steps = given.steps;
  options.seconds_max = given.seconds_max;
  options.interrupted = [] { return interrupts() > 0; };
  const Rehearsal r = [&] {
    Ahead ahead(std::min<std::int64_t>(options.steps, options.config.train.steps), options.seconds_max);
    options.heard = [&](std::int64_t step) { ahead.heard(step); };
    return rehearse(options);
  }();
  std::fputs((given.json ? as_json(options.config, r).dump(1) + "\n" : as_text(options.config, r)).c_str(), stdout);
  return 0;
}

}  // namespace troupe
