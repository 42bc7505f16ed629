#include "launcher/phases.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "launcher/bill.h"
#include "launcher/distill.h"
#include "launcher/evaluate_tasks.h"
#include "launcher/interrupts.h"
#include "launcher/loop.h"
#include "launcher/machine.h"
#include "launcher/metrics_file.h"
#include "launcher/program.h"
#include "launcher/report.h"
#include "launcher/run_folder.h"
#include "launcher/tools.h"
#include "launcher/whole_file.h"
#include "launcher/world.h"

namespace troupe {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::string folder_of(const Config& phase, const std::string& run) { return run + "/phases/" + phase.name; }

// RUN/current is the phase that is trained now, RUN/latest the one that was trained last.
void point_to(const std::string& run, const std::string& name, const Config& phase) {
  const std::string link = run + "/" + name, partial = link + ".partial";
  std::error_code ignored;
  fs::remove(partial, ignored);
  fs::create_directory_symlink("phases/" + phase.name, partial);
  fs::rename(partial, link);
}

// Whose weights a phase takes: those of the phase that is named, else what is named, else of the last phase before it that
// has some.
std::string weights_for(const Recipe& recipe, std::size_t number, const std::string& named, const std::string& run) {
  for (std::size_t i = number; i-- > 0;) {
    const PhaseResult before = phase_result(recipe.phases[i], run);
    if (before.checkpoint.empty() || (!named.empty() && named != before.name)) continue;
    return before.checkpoint;
  }
  return named;
}

struct Spent {
  double dollars = 0, hours = 0;
};

std::string traces_of(const std::string& folder) { return folder + "/traces.jsonl"; }

// What the trainer is told.
Config as_trained(const Config& phase, const std::string& folder) {
  return phase.kind == "distill" ? student_of(phase, traces_of(folder)) : phase;
}

// The key of the whole run's budget that is spent; empty: none.
std::string spent_key(const BudgetConfig& budget, const Spent& spent) {
  if (budget.max_cost > 0 && spent.dollars >= budget.max_cost) return "budget.max_cost";
  if (budget.max_hours > 0 && spent.hours >= budget.max_hours) return "budget.max_hours";
  return "";
}

// The phase with no more than what is left of the whole run's budget.
Config with_rest(const Config& phase, const BudgetConfig& budget, const Spent& spent) {
  Config own = phase;
  const auto least = [](double& limit, double all, double gone) {
    if (all <= 0) return;
    const double left = std::max(all - gone, 1e-12);
    limit = limit > 0 ? std::min(limit, left) : left;
  };
  least(own.budget.max_cost, budget.max_cost, spent.dollars);
  least(own.budget.max_hours, budget.max_hours, spent.hours);
  return own;
}

void begin_run(const Recipe& recipe, const std::string& out, bool resume) {
  const bool exists = fs::exists(out + "/config.toml");
  if (exists && !fs::exists(out + "/phases"))
    throw Error("{}: a run is here already, without phases; choose another folder with --out", out);
  if (exists && !resume)
    throw Error("{}: a run is here already; continue it with --resume, or choose another folder with --out", out);
  if (!exists && resume) throw Error("{}: there is no run to resume (no config.toml); start it without --resume", out);
  for (const Config& phase : recipe.phases)  // of those that are over too; and before anything is written
    if (const std::string folder = folder_of(phase, out); fs::exists(folder + "/config.toml"))
      check_resumable(load_run_config(folder), as_trained(phase, folder), folder);
  std::error_code failed;
  fs::create_directories(out + "/phases", failed);
  if (failed) throw Error("{}: can't make the run's folder: {}", out, failed.message());
  write_whole_file(out + "/config.toml", recipe_to_toml(recipe));
}

void end_phase(const PhaseResult& result) {
  write_whole_file(result.folder + "/phase.json", json{{"name", result.name},
                                                       {"kind", result.kind},
                                                       {"ended_by", result.ended_by},
                                                       {"checkpoint", result.checkpoint},
                                                       {"dollars", result.dollars},
                                                       {"device_hours", result.device_hours}}
                                                          .dump(1) +
                                                      "\n");
}

}  // namespace

PhaseResult phase_result(const Config& phase, const std::string& run) {
  PhaseResult result;
  result.name = phase.name;
  result.kind = phase.kind;
  result.folder = folder_of(phase, run);
  result.over = fs::exists(result.folder + "/phase.json");
  for_each_metric(result.folder + "/metrics.jsonl", [&](const std::string& kind, const json& line) {
    if (kind == "finished") result.ended_by = line.value("reason", "");
    if (kind != "bill") return;
    result.dollars = line.at("cost_dollars");
    result.device_hours = line.at("wall_thread_seconds").get<double>() / 3600;
  });
  Config machine = phase;
  resolve_machine(machine);  // its threads
  result.wall_hours = result.device_hours / machine.device.threads / machine.layout.nodes;
  // It came to its end, and the process died before it could say so.
  const bool cut = result.ended_by.empty() || result.ended_by == "interrupted" || result.ended_by == "budget";
  result.over = result.over || !cut;
  const auto checkpoints = list_checkpoints(result.folder);
  if (!checkpoints.empty()) result.checkpoint = checkpoints.back().path;
  return result;
}

namespace {

// Puts time that was spent before any step on the phase's bill; `more`: lines behind it. All of them or none are there.
void charge(const Config& phase, const std::string& folder, std::int64_t begin_us, std::int64_t end_us,
            const std::string& more = "") {
  Config machine = phase;
  resolve_machine(machine);
  const std::string path = folder + "/metrics.jsonl";
  std::string text = read_whole_file(path);
  text.erase(text.rfind('\n') + 1);  // of a line that a kill cut off
  fs::create_directories(folder);
  write_whole_file(path, text + bill_of_time(machine, Bin::evaluation, begin_us, end_us, path).dump() + "\n" + more);
}

// Work that asks a model; where it is interrupted its time is on the bill all the same.
template <typename Work>
void paid_if_cut(const Config& phase, const std::string& folder, Work work) {
  const std::int64_t begin_us = monotonic_us();
  try {
    work();
  } catch (const Interrupted&) {
    charge(phase, folder, begin_us, monotonic_us());
    throw;
  }
}

// An evaluation says itself how long it took: one whose process died before it could bill it is billed by the next.
int evaluate_phase(const Config& phase, const std::string& weights, const std::string& folder, bool quiet) {
  const std::string result = folder + "/evaluation.json";
  EvaluateOptions options;
  options.run = weights;
  options.out = folder;
  options.quiet = quiet;
  options.silent = true;
  options.tokens_fixed = phase.grpo.completion_max > 0;
  if (!fs::exists(result))
    paid_if_cut(phase, folder, [&] { evaluate_loaded(load_to_answer(weights, phase), options); });
  std::ifstream file(result);
  const double seconds = json::parse(file).at("seconds");
  charge(phase, folder, 0, std::llround(seconds * 1e6),
         json{{"kind", "finished"}, {"reason", "evaluate.problems"}}.dump() + "\n");
  return 0;
}

// The teacher's time comes first on the phase's bill, and the training goes on from it.
void ask_teacher(const Config& phase, const std::string& teacher, const std::string& folder, bool quiet) {
  if (fs::exists(traces_of(folder))) return;
  const std::int64_t begin_us = monotonic_us();
  paid_if_cut(phase, folder, [&] { write_traces(phase, teacher, traces_of(folder), quiet); });
  charge(phase, folder, begin_us, monotonic_us());
}

int run_phase(const Recipe& recipe, std::size_t number, const Config& phase, const std::string& out,
              const RunStart& how) {
  const std::string folder = folder_of(phase, out);
  RunStart start = how;
  if (phase.kind == "evaluate")
    return evaluate_phase(phase, weights_for(recipe, number, phase.train.start_from, out), folder, how.quiet);
  if (phase.kind == "distill")
    ask_teacher(phase, weights_for(recipe, number, phase.distill.teacher, out), folder, how.quiet);
  if (phase.kind != "distill" || !phase.train.start_from.empty())
    start.weights = weights_for(recipe, number, phase.train.start_from, out);
  return train_run(as_trained(phase, folder), folder, start);
}

}  // namespace

int train_phases(const Recipe& recipe, const std::string& out, const RunStart& start) try {
  catch_interrupts();
  begin_run(recipe, out, start.resume);
  Spent spent;
  for (std::size_t i = 0; i < recipe.phases.size(); ++i) {
    const Config& phase = recipe.phases[i];
    const PhaseResult before = phase_result(phase, out);
    if (!before.over) {
      if (!start.quiet)
        std::printf("\nphase %zu of %zu: %s (%s)\n", i + 1, recipe.phases.size(), phase.name.c_str(),
                    phase.kind.c_str());
      std::fflush(stdout);
      point_to(out, "current", phase);
      RunStart how = start;
      how.resume = start.resume && fs::exists(before.folder + "/config.toml");
      const int code = run_phase(recipe, i, with_rest(phase, recipe.budget, spent), out, how);
      if (!phase_result(phase, out).checkpoint.empty()) point_to(out, "latest", phase);
      if (code != 0) return code;
    }
    const PhaseResult result = phase_result(phase, out);
    spent.dollars += result.dollars;
    spent.hours += result.wall_hours;
    const std::string key = spent_key(recipe.budget, spent);
    const bool cut = !before.over && result.ended_by == "budget" && !key.empty();
    if (!cut) end_phase(result);
    if (cut || (!key.empty() && i + 1 < recipe.phases.size())) {
      std::fprintf(stderr, "%s is reached in phase %s; raise it and continue with: %s\n", key.c_str(),
                   phase.name.c_str(), resume_command(out).c_str());
      break;
    }
  }
  write_report(recipe, out);
  if (!start.quiet) std::printf("\nreport          %s/report.md\n", out.c_str());
  return 0;
} catch (const Interrupted&) {
  std::fprintf(stderr, "\ninterrupted; continue with: %s\n", resume_command(out).c_str());
  return kInterrupted;
}

}  // namespace troupe
