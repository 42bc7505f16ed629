#include "launcher/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "kernels/model/parameters.h"
#include "launcher/alarm.h"
#include "launcher/phases.h"
#include "launcher/report_figures.h"
#include "launcher/run_charts.h"

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
    parts.push_back({phase, folder, checkpoints.empty() ? "" : checkpoints.back().path, read_figures(phase, folder)});
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
      training_flops_per_token(m, last.config.train.sequence_length), m.vocab_size, last.config.data.tokenizer);
  if (m.n_routed_experts > 0)
    text += fmt::format("Experts: {} routed, {} for a token, {} shared.\n", m.n_routed_experts, m.num_experts_per_tok,
                        m.n_shared_experts);
  if (!last.checkpoint.empty())
    text += fmt::format("Weights: `{}`, SHA-256 of all tensors `{}`.\n", relative(last.checkpoint, run),
                        weights_digest(last.checkpoint));
  return text + "\n";
}

std::string accuracy_of(const RunFigures& f) {
  if (!f.before) return "";
  const AnswerFigures &b = *f.before, &a = *f.after;
  return fmt::format("{} -> {}", percent(b.accuracy), percent(a.accuracy));
}

std::string point_price(const RunFigures& f) {
  const double points = f.before ? 100 * (f.after->accuracy - f.before->accuracy) : 0;
  return points > 0 ? dollars(f.dollars / points) : "";
}

std::string phases_section(const std::vector<Part>& parts) {
  std::string text = "## What was done, and what it bought\n\n";
  text +=
      "| phase | kind | steps | tokens trained | answers sampled | accuracy, before -> after | greedy | pass@k | "
      "held-out loss | device-hours | price | price a point | ended by |\n";
  text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
  double price = 0, hours = 0;
  for (const Part& p : parts) {
    const RunFigures& f = p.figures;
    const auto pair = [](double before, double after) {
      return fmt::format("{} -> {}", percent(before), percent(after));
    };
    text +=
        fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.5f} | {} | {} | {} |\n", p.config.name,
                    p.config.kind, f.steps, f.tokens, f.answers_sampled > 0 ? fmt::format("{}", f.answers_sampled) : "",
                    accuracy_of(f), f.before ? pair(f.before->greedy, f.after->greedy) : "",
                    f.before ? fmt::format("{} (k = {})", pair(f.before->pass, f.after->pass), f.after->pass_k) : "",
                    f.loss_before ? fmt::format("{:.4f} -> {:.4f}", *f.loss_before, *f.loss_after) : "", f.device_hours,
                    dollars(f.dollars), point_price(f), f.ended_by);
    price += f.dollars;
    hours += f.device_hours;
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
    std::ofstream(name) << svg_charts(charts);
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

std::string data_section(const std::vector<Part>& parts) {
  std::string text = "## Data\n\n| phase | source | licence | bytes | SHA-256 |\n| --- | --- | --- | --- | --- |\n";
  for (const Part& p : parts) {
    std::ifstream file(p.checkpoint + "/manifest.json");
    const json read = file ? json::parse(file, nullptr, false) : json::object();
    const json manifest = read.is_object() ? read : json::object();
    for (const json& source : manifest.value("data", json::array())) {
      const std::string licence = source.value("licence", "");
      text += fmt::format("| {} | {} | {} | {} | `{}` |\n", p.config.name, source.value("source", ""),
                          licence.empty() ? "not told (data.licence)" : licence, source.value("bytes", 0),
                          source.value("sha256", "").substr(0, 16));
    }
    if (!p.config.task.names.empty())
      text += fmt::format(
          "| {} | problems of task {}, levels {} to {}, seed {}; one in sixteen held out by its content | "
          "generated | | |\n",
          p.config.name, fmt::join(p.config.task.names, ", "), p.config.task.level_min, p.config.task.level_max,
          p.config.train.seed);
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
    if (!p->figures.after) continue;
    const AnswerFigures& a = *p->figures.after;
    return fmt::format(
        "{} held-out problems, {} answers each: {} right at temperature {}, {} greedily, pass@{} {}. With "
        "intervals, by level, and beside another model: `troupe eval RUN --tasks {}`.",
        a.problems, a.samples, percent(a.accuracy), a.temperature, percent(a.greedy), a.pass_k, percent(a.pass),
        fmt::join(p->config.task.names, ","));
  }
  return "No task was evaluated; set evaluate.problems and task.names.";
}

std::string scaling(const std::vector<Part>& parts) {
  std::string text;
  for (const Part& p : parts) {
    const RunFigures& f = p.figures;
    if (f.loss_curve.size() < 2 || f.steps == 0) continue;
    text += fmt::format("Phase {} spent {:.3g} FLOP on training; held-out loss at a quarter, half and all of it:",
                        p.config.name, f.flops);
    for (const double share : {0.25, 0.5, 1.0}) {
      const double wanted = share * static_cast<double>(f.steps);
      const auto nearest =
          std::min_element(f.loss_curve.begin(), f.loss_curve.end(), [&](const auto& a, const auto& b) {
            return std::abs(static_cast<double>(a.first) - wanted) < std::abs(static_cast<double>(b.first) - wanted);
          });
      text += fmt::format(" {:.4f} ({:.3g} FLOP)", nearest->second,
                          f.flops * static_cast<double>(nearest->first) / static_cast<double>(f.steps));
    }
    text += ". ";
  }
  return text.empty() ? "No held-out loss was measured." : text;
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
      alarms +=
          fmt::format(" {}: {}", p.config.name, reward_alarm(read_reward_series(p.folder + "/metrics.jsonl")).sentence);
  }
  std::string text =
      fmt::format("{} processes lost and replaced, {} steps skipped (loss not finite or a spike), {} stalls.", losses,
                  skipped, stalls);
  if (checked > 0)
    text += fmt::format(" Of {} log-probabilities recomputed by the weights that sampled them {} had other bits.",
                        checked, gaps);
  return text +
         " The same configuration gives these weights again, bit for bit, on any layout of this kind of machine." +
         alarms;
}

std::string questions(const std::vector<Part>& parts) {
  return fmt::format(
      "## Four questions that R1's announcement left open, answered for this run\n\n"
      "**Benchmarks.** {}\n\n**Scaling.** {}\n\n**Reliability.** {}\n\n"
      "**Data sources.** All of them stand above with their digests; nothing else was read. What overlaps with the "
      "problems: `troupe eval RUN --tasks NAME --against FILE`.\n",
      benchmarks(parts), scaling(parts), reliability(parts));
}

}  // namespace

void write_report(const Recipe& recipe, const std::string& run) {
  const std::vector<Part> parts = parts_of(recipe, run);
  std::string text = fmt::format("# {}\n\n", recipe.name);
  const auto last = std::find_if(parts.rbegin(), parts.rend(), [](const Part& p) { return !p.checkpoint.empty(); });
  if (last != parts.rend()) text += model_section(*last, run);
  text += phases_section(parts) + pictures(parts, run) + time_section(parts) + data_section(parts) + kScale +
          questions(parts);
  std::ofstream file(run + "/report.md");
  file << text;
  if (!file.flush()) throw Error("{}/report.md: can't be written; is the disk full?", run);
}

}  // namespace troupe
