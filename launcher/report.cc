#include "launcher/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "actors/data/tokenizer.h"
#include "actors/rules/trainable.h"
#include "kernels/base/error.h"
#include "kernels/model/parameters.h"
#include "launcher/alarm.h"
#include "launcher/phases.h"
#include "launcher/report_figures.h"
#include "launcher/run_charts.h"
#include "launcher/run_folder.h"
#include "launcher/whole_file.h"

namespace troupe {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

struct Part {
  Config config;
  std::string folder, checkpoint;
  RunFigures figures;
};

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }
std::string dollars(double amount) {
  return amount < 0.01 ? fmt::format("${:.6f}", amount) : fmt::format("${:.2f}", amount);
}

std::vector<Part> parts_of(const Recipe& recipe, const std::string& run) {
  std::vector<Part> parts;
  for (const Config& phase : recipe.phases) {
    const std::string folder = recipe.has_phases ? phase_result(phase, run).folder : run;
    const auto checkpoints = list_checkpoints(folder);
    // Its own configuration has the experts that were chosen when it began.
    const Config own = fs::exists(folder + "/config.toml") ? load_run_config(folder) : phase;
    parts.push_back({own, folder, checkpoints.empty() ? "" : checkpoints.back().path, read_figures(own, folder)});
  }
  return parts;
}

std::string relative(const std::string& path, const std::string& run) {
  return fs::path(path).lexically_relative(run).string();
}

std::string model_section(const Part& last, const std::string& run) {
  const ModelConfig& m = last.config.model;
  std::string text = "## The model\n\n";
  text += fmt::format(
      "{}: {} layers, width {}, {} parameters, {} of them active for a token; {:.4g} FLOP a trained "
      "token. Vocabulary {}, tokenizer {}.\n",
      m.model_type, m.num_hidden_layers, m.hidden_size, parameter_count(m), active_parameter_count(m),
      flops_per_trained_token(last.config), m.vocab_size, last.config.data.tokenizer);
  if (m.n_routed_experts > 0)
    text += fmt::format("Experts: {} routed, {} for a token, {} shared.\n", m.n_routed_experts, m.num_experts_per_tok,
                        m.n_shared_experts);
  if (!last.checkpoint.empty())
    text += fmt::format("Weights: `{}`, SHA-256 of all tensors `{}`.\n", relative(last.checkpoint, run),
                        weights_digest(last.checkpoint));
  return text + "\n";
}

// What was measured first and last; what was measured once is one figure, and what never was none.
template <typename Figures, typename Text>
std::string first_to_last(const Figures& by_version, Text text) {
  if (by_version.empty()) return "";
  const std::string first = text(by_version.begin()->second), last = text(by_version.rbegin()->second);
  return by_version.size() == 1 ? last : fmt::format("{} -> {}", first, last);
}

std::string point_price(const RunFigures& f) {
  if (f.answers.size() < 2) return "";
  const double points = 100 * (f.answers.rbegin()->second.accuracy - f.answers.begin()->second.accuracy);
  return points > 0 ? dollars(f.dollars / points) : "";
}

std::string phase_row(const Part& p) {
  const RunFigures& f = p.figures;
  const auto share = [&](double AnswerFigures::*figure) {
    return first_to_last(f.answers, [&](const AnswerFigures& a) { return percent(a.*figure); });
  };
  std::string pass = share(&AnswerFigures::pass);
  if (!pass.empty()) pass += fmt::format(" (k = {})", f.answers.rbegin()->second.pass_k);
  return fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.5f} | {} | {} | {} |\n", p.config.name,
                     p.config.kind, f.steps, f.tokens, f.answers_sampled > 0 ? std::to_string(f.answers_sampled) : "",
                     share(&AnswerFigures::accuracy), share(&AnswerFigures::greedy), pass,
                     first_to_last(f.loss, [](double loss) { return fmt::format("{:.4f}", loss); }), f.device_hours,
                     dollars(f.dollars), point_price(f), f.ended_by);
}

std::string phases_section(const std::vector<Part>& parts) {
  std::string text = "## What was done, and what it bought\n\n";
  text +=
      "| phase | kind | steps | tokens trained | answers sampled | accuracy, first -> last | greedy | pass@k | "
      "held-out loss | device-hours | price | price a point | ended by |\n";
  text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
  double price = 0, hours = 0;
  for (const Part& p : parts) {
    text += phase_row(p);
    price += p.figures.dollars;
    hours += p.figures.device_hours;
  }
  text += fmt::format("| all | | | | | | | | | {:.5f} | {} | | |\n\n", hours, dollars(price));
  text +=
      "Accuracy is of held-out problems, answers sampled at the temperature of [evaluate] (usually 1), the mean over "
      "all answers; part of what reinforcement adds to it is sharpening, so greedy answers and pass@k stand beside "
      "it. A device-hour is an hour of one compute thread.\n\n";
  return text;
}

std::string pictures(const std::vector<Part>& parts, const std::string& run) {
  std::string text = "## Pictures\n\n";
  for (const Part& p : parts) {
    const std::vector<Chart> charts = run_charts(p.folder + "/metrics.jsonl");
    if (charts.empty()) continue;
    const std::string name = p.folder + "/charts.svg";
    write_whole_file(name, svg_charts(charts));
    text += fmt::format("![{}: curves]({})\n\n", p.config.name, relative(name, run));
  }
  return text;
}

std::string time_section(const std::vector<Part>& parts) {
  std::map<std::string, double> sums;
  for (const Part& p : parts)
    for (const auto& [bin, spent] : p.figures.thread_seconds) sums[bin] += spent;
  double total = 1e-12;
  for (const auto& [bin, spent] : sums) total += spent;
  std::string text = "## Where the time went\n\n| bin | thread-seconds | share |\n| --- | --- | --- |\n";
  std::vector<std::pair<std::string, double>> sorted(sums.begin(), sums.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [bin, spent] : sorted)
    if (spent > 0) text += fmt::format("| {} | {:.1f} | {} |\n", bin, spent, percent(spent / total));
  return text + "\n";
}

std::string source_row(const std::string& phase, const std::string& source, const std::string& licence,
                       std::int64_t bytes, const std::string& sha256) {
  return fmt::format("| {} | {} | {} | {} | `{}` |\n", phase, source,
                     licence.empty() ? "not told (data.licence)" : licence, bytes > 0 ? std::to_string(bytes) : "",
                     sha256.substr(0, 16));
}

std::string missing_row(const std::string& phase, const std::string& source) {
  return fmt::format("| {} | {} | | | missing now |\n", phase, source);
}

std::string file_row(const Config& config, const std::string& what, const std::string& file,
                     const std::string& licence) {
  const std::string source = what + file;
  if (!fs::is_regular_file(file)) return missing_row(config.name, source);
  return source_row(config.name, source, licence, static_cast<std::int64_t>(fs::file_size(file)), sha256_file(file));
}

// Where a phase's problems come from: a generator, or files.
std::string problem_rows(const Config& config) {
  const TaskConfig& task = config.task;
  if (task.names.empty()) return "";
  std::string text = fmt::format(
      "| {} | problems of task {}, levels {} to {}, seed {}; one in sixteen held out by its content | {} | | |\n",
      config.name, fmt::join(task.names, ", "), task.level_min, task.level_max, config.train.seed,
      task.files.empty() ? "generated" : "of its files");
  for (const std::string& file : task.files) text += file_row(config, "", file, config.data.licence);
  return text;
}

// Weights that a phase began with or asked, unless they are of a phase of this run.
std::string weights_row(const std::vector<Part>& parts, const Config& config, const std::string& what,
                        const std::string& weights) {
  const auto is_named = [&](const Part& p) { return p.config.name == weights; };
  if (weights.empty() || std::any_of(parts.begin(), parts.end(), is_named)) return "";
  const std::string source = fmt::format("{} {}", what, weights);
  try {
    return fmt::format("| {} | {} | not told | | `{}` of all tensors |\n", config.name, source,
                       weights_digest(resolve_checkpoint(weights)).substr(0, 16));
  } catch (const std::exception&) {
    return missing_row(config.name, source);
  }
}

// A run keeps its tokenizer in its folder.
std::string tokenizer_row(const Part& p) {
  const std::string kept = p.folder + "/tokenizer.json", named = tokenizer_file_of(p.config.data.tokenizer);
  return named.empty() ? "" : file_row(p.config, "tokenizer ", fs::exists(kept) ? kept : named, "");
}

std::string data_section(const std::vector<Part>& parts, const std::string& run) {
  std::string text = "## Data\n\n| phase | source | licence | bytes | SHA-256 |\n| --- | --- | --- | --- | --- |\n";
  const fs::path home = fs::absolute(run).lexically_normal();
  for (const Part& p : parts) {
    std::ifstream file(p.checkpoint + "/manifest.json");
    const json read = file ? json::parse(file, nullptr, false) : json::object();
    const json manifest = read.is_object() ? read : json::object();
    for (const json& source : manifest.value("data", json::array())) {
      std::string name = source.value("source", "");
      const fs::path within = fs::path(name).lexically_relative(home);
      if (!within.empty() && *within.begin() != "..") name = within.string();
      text += source_row(p.config.name, name, source.value("licence", ""), source.value("bytes", std::int64_t{0}),
                         source.value("sha256", ""));
    }
    text += problem_rows(p.config) + tokenizer_row(p) +
            weights_row(parts, p.config, "weights to start from:", p.config.train.start_from);
    if (p.config.kind == "distill") text += weights_row(parts, p.config, "teacher:", p.config.distill.teacher);
  }
  return text + "\n";
}

const char* const kScale =
    "## For scale: DeepSeek-R1\n\n"
    "| | H800 hours | at $2 an hour |\n| --- | --- | --- |\n"
    "| R1-Zero | 101K | $202K |\n| data for supervised fine-tuning | 5K | $10K |\n| R1 | 41K | $82K |\n"
    "| all | 147K | $294K |\n\n"
    "As published with R1 (Nature, 2025, supplement); the base model, DeepSeek-V3, cost 2,788K hours before.\n\n";

// ---- The questions that R1's announcement left open -----------------------------------------------------------------

std::string benchmarks(const std::vector<Part>& parts) {
  for (auto p = parts.rbegin(); p != parts.rend(); ++p) {
    if (p->figures.answers.empty()) continue;
    const AnswerFigures& a = p->figures.answers.rbegin()->second;
    // An evaluation counts every problem once; while a model trains it is asked what it is asked.
    const char* repeats = p->config.kind == "evaluate" ? "" : " (of a level with few, some twice)";
    return fmt::format(
        "{} held-out problems{}, {} answers each: {} right at temperature {}, {} greedily, pass@{} {}. With "
        "intervals, by level, and beside another model: `troupe eval RUN --tasks {}`.",
        a.problems, repeats, a.samples, percent(a.accuracy), a.temperature, percent(a.greedy), a.pass_k,
        percent(a.pass), fmt::join(p->config.task.names, ","));
  }
  return "No task was evaluated; set evaluate.problems and task.names.";
}

// The measurements nearest to a quarter, half and all of the steps, each once.
std::string scaling_of(const Part& p) {
  const RunFigures& f = p.figures;
  std::set<std::int64_t> versions;
  for (const double share : {0.25, 0.5, 1.0}) {
    const auto distance = [&](const auto& one) {
      return std::abs(static_cast<double>(one.first) - share * static_cast<double>(f.steps));
    };
    versions.insert(std::min_element(f.loss.begin(), f.loss.end(), [&](const auto& a, const auto& b) {
                      return distance(a) < distance(b);
                    })->first);
  }
  std::string text = fmt::format("Phase {} spent {:.3g} FLOP on training; held-out loss as measured {}:", p.config.name,
                                 f.flops, f.loss.size() == 1 ? "once" : "nearest to a quarter, half and all of it");
  for (const std::int64_t version : versions)
    text += fmt::format(" {:.4f} ({:.3g} FLOP)", f.loss.at(version),
                        f.flops * static_cast<double>(version) / static_cast<double>(f.steps));
  return text + ". ";
}

std::string scaling(const std::vector<Part>& parts) {
  std::string text;
  for (const Part& p : parts)
    if (!p.figures.loss.empty() && p.figures.steps > 0) text += scaling_of(p);
  return text.empty() ? "No held-out loss was measured." : text;
}

// Time and money end a run somewhere, and a command is no function of what it is asked.
bool repeats_bit_for_bit(const Part& p) {
  const bool ended_by_chance = p.figures.ended_by == "budget" || p.figures.ended_by == "interrupted";
  return !ended_by_chance && p.config.judge.command.empty() && p.config.judge.on_failure != "zero";
}

std::string reliability(const std::vector<Part>& parts) {
  std::int64_t losses = 0, skipped = 0, stalls = 0, gaps = 0, checked = 0;
  std::string alarms;
  for (const Part& p : parts) {
    losses += p.figures.losses;
    skipped += p.figures.skipped;
    stalls += p.figures.stalls;
    gaps += p.figures.gaps;
    checked += p.figures.checked;
    if (p.config.has_rollouts())
      alarms += fmt::format(" {}: {}.", p.config.name,
                            reward_alarm(read_reward_series(p.folder + "/metrics.jsonl")).sentence);
  }
  std::string text =
      fmt::format("{} processes lost and replaced, {} steps skipped (loss not finite or a spike), {} stalls.", losses,
                  skipped, stalls);
  if (checked > 0)
    text += fmt::format(" Of {} log-probabilities recomputed by the weights that sampled them {} had other bits.",
                        checked, gaps);
  if (std::all_of(parts.begin(), parts.end(), repeats_bit_for_bit))
    text +=
        " By design the same configuration gives these weights again, bit for bit, on any layout of this kind of "
        "machine; that is checked by tests, not by this run.";
  return text + alarms;
}

std::string questions(const std::vector<Part>& parts) {
  return fmt::format(
      "## Four questions that R1's announcement left open, answered for this run\n\n"
      "**Benchmarks.** {}\n\n**Scaling.** {}\n\n**Reliability.** {}\n\n"
      "**Data sources.** They stand above with their digests. What overlaps with the problems: `troupe eval RUN "
      "--tasks NAME --against FILE`.\n",
      benchmarks(parts), scaling(parts), reliability(parts));
}

}  // namespace

void write_report(const Recipe& recipe, const std::string& run) {
  const std::vector<Part> parts = parts_of(recipe, run);
  std::string text = fmt::format("# {}\n\n", recipe.name);
  const auto last = std::find_if(parts.rbegin(), parts.rend(), [](const Part& p) { return !p.checkpoint.empty(); });
  if (last != parts.rend()) text += model_section(*last, run);
  text += phases_section(parts) + pictures(parts, run) + time_section(parts) + data_section(parts, run);
  const auto has_rollouts = [](const Part& p) { return p.config.has_rollouts(); };
  if (recipe.has_phases || std::any_of(parts.begin(), parts.end(), has_rollouts)) text += kScale + questions(parts);
  write_whole_file(run + "/report.md", text);
}

}  // namespace troupe
