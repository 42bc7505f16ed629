#include "launcher/compare_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "actors/checkpoint/manifest.h"
#include "actors/rules/bill.h"
#include "kernels/base/error.h"
#include "launcher/config_keys.h"
#include "launcher/progress.h"
#include "launcher/run_folder.h"
#include "launcher/svg_text.h"

namespace troupe {

using nlohmann::json;

namespace {

using Lines = std::map<double, MetricLine>;

const char* const kNothing = "-";

std::optional<double> number_in(const MetricLine& line, const std::string& key) {
  const auto found = line.find(key);
  return found == line.end() || !std::isfinite(found->second) ? std::nullopt : std::optional(found->second);
}

// The last line that has the key, and the least.
struct Told {
  double at = 0, value = 0;
};
std::optional<Told> last_of(const Lines& lines, const std::string& key) {
  for (auto line = lines.rbegin(); line != lines.rend(); ++line)
    if (const auto value = number_in(line->second, key)) return Told{line->first, *value};
  return std::nullopt;
}
std::optional<Told> least_of(const Lines& lines, const std::string& key) {
  std::optional<Told> least;
  for (const auto& [at, line] : lines)
    if (const auto value = number_in(line, key); value && (!least || *value < least->value)) least = Told{at, *value};
  return least;
}
std::optional<double> median_of(const Lines& lines, const std::string& key) {
  std::vector<double> all;
  for (const auto& [at, line] : lines)
    if (const auto value = number_in(line, key)) all.push_back(*value);
  if (all.empty()) return std::nullopt;
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  std::nth_element(all.begin(), middle, all.end());
  return *middle;
}
// Of the last tenth of the lines.
std::optional<double> late_mean_of(const Lines& lines, const std::string& key) {
  double sum = 0;
  std::size_t count = 0;
  const std::size_t wanted = std::max<std::size_t>(1, lines.size() / 10);
  for (auto line = lines.rbegin(); line != lines.rend() && count < wanted; ++line) {
    const auto value = number_in(line->second, key);
    if (!value) continue;
    sum += *value;
    ++count;
  }
  return count == 0 ? std::nullopt : std::optional(sum / static_cast<double>(count));
}

std::string loss_text(const std::optional<Told>& told, const char* what) {
  if (!told) return kNothing;
  const bool tiny = std::abs(told->value) < 1e-3;  // of reinforcement
  return fmt::format("{} ({} {:g})", tiny ? figure_text(told->value) : fmt::format("{:.4f}", told->value), what,
                     told->at);
}
std::string percent(const std::optional<double>& share) {
  return share ? fmt::format("{:.1f} %", 100 * *share) : kNothing;
}

std::string cost_text(const ComparedRun& run) {
  if (!run.metrics.bill.is_object()) return kNothing;
  const double cost = run.metrics.bill.value("cost_dollars", 0.0);
  return cost > 0 ? "$" + figure_text(cost) : "free";
}

std::string bill_text(const ComparedRun& run, Bin bin) {
  const json& bill = run.metrics.bill;
  const double total = bill.is_object() ? bill.value("total_thread_seconds", 0.0) : 0;
  if (total <= 0 || !bill.contains("thread_seconds")) return kNothing;
  const double spent = bill["thread_seconds"].value(to_string(bin), 0.0);
  return fmt::format("{:.1f} % ({} s)", 100 * spent / total, figure_text(spent));
}

bool has(const std::string& value) { return value != kNothing; }

class LinesOfRuns {
 public:
  explicit LinesOfRuns(const std::vector<ComparedRun>& runs) : runs_(runs) {}
  // If any run has it.
  template <typename Text>
  void add(const std::string& what, const Text& text) {
    ComparedLine line{what, {}};
    for (const ComparedRun& run : runs_) line.values.push_back(text(run));
    if (std::any_of(line.values.begin(), line.values.end(), has)) lines_.push_back(std::move(line));
  }
  std::vector<ComparedLine> lines_;

 private:
  const std::vector<ComparedRun>& runs_;
};

void add_results(LinesOfRuns& lines) {
  using Run = const ComparedRun&;
  lines.add("steps", [](Run r) {
    return fmt::format("{:g}{}", r.metrics.steps.rbegin()->first + 1, r.metrics.finished ? "" : ", not finished");
  });
  lines.add("tokens trained", [](Run r) {
    const auto tokens = last_of(r.metrics.steps, "tokens");
    return tokens ? counted(tokens->value) : kNothing;
  });
  lines.add("loss, last", [](Run r) { return loss_text(last_of(r.metrics.steps, "loss"), "step"); });
  lines.add("loss, best", [](Run r) { return loss_text(least_of(r.metrics.steps, "loss"), "step"); });
  lines.add("held-out loss, last", [](Run r) { return loss_text(last_of(r.metrics.evaluations, "loss"), "after"); });
  lines.add("held-out loss, best", [](Run r) { return loss_text(least_of(r.metrics.evaluations, "loss"), "after"); });
  lines.add("reward, last tenth", [](Run r) {
    const auto reward = late_mean_of(r.metrics.steps, "reward");
    return reward ? figure_text(*reward) : kNothing;
  });
  for (const auto& [what, key] : {std::pair{"held-out right", "accuracy"}, {"  greedily", "greedy"}})
    lines.add(what, [key = key](Run r) {
      const auto told = last_of(r.metrics.answers, key);
      return told ? fmt::format("{:.1f} % (after {:g})", 100 * told->value, told->at) : kNothing;
    });
  lines.add("busiest expert, last", [](Run r) {
    const auto load = last_of(r.metrics.steps, "worst_load");
    return load ? fmt::format("{:.2f} times the mean", load->value) : kNothing;
  });
}

void add_price(LinesOfRuns& lines) {
  using Run = const ComparedRun&;
  lines.add("tokens/s, median", [](Run r) {
    const auto speed = median_of(r.metrics.steps, "tokens_per_second");
    return speed ? counted(*speed) : kNothing;
  });
  lines.add("MFU, median", [](Run r) { return percent(median_of(r.metrics.steps, "mfu")); });
  lines.add("seconds of training", [](Run r) {
    const auto seconds = last_of(r.metrics.steps, "seconds");
    return seconds ? figure_text(seconds->value) : kNothing;
  });
  lines.add("cost", cost_text);
  lines.add("thread-seconds", [](Run r) {
    return r.metrics.bill.is_object() ? figure_text(r.metrics.bill.value("total_thread_seconds", 0.0)) : kNothing;
  });
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    const auto what = static_cast<Bin>(bin);
    lines.add(fmt::format("  {}", to_string(what)), [what](Run r) {
      const std::string text = bill_text(r, what);
      return text.starts_with("0.0 % (0 s)") ? std::string(kNothing) : text;
    });
  }
  lines.add("processes lost", [](Run r) {
    return r.metrics.bill.is_object() ? fmt::format("{}", r.metrics.bill.value("losses", 0)) : kNothing;
  });
}

}  // namespace

ComparedRun read_compared_run(const std::string& path) {
  ComparedRun run;
  const std::string folder = current_run(path);
  run.name = path;
  run.config = load_run_config(folder);
  run.metrics = read_run_metrics(folder + "/metrics.jsonl");
  if (run.metrics.steps.empty()) throw Error("{}: has done no step yet, so there is nothing to compare", path);
  if (const auto checkpoints = list_checkpoints(folder); !checkpoints.empty()) {
    run.version = checkpoints.back().version;
    run.digest = weights_digest(checkpoints.back().path);
  }
  return run;
}

std::vector<ConfigDifference> config_differences(const std::vector<Config>& configs) {
  std::vector<Config> copies = configs;
  std::vector<ConfigDifference> differences;
  for (const Key& key : config_keys()) {
    ConfigDifference difference{key.name, key.numbers, {}};
    for (Config& config : copies) difference.values.push_back(value_text(key.slot(config, false)));
    const auto& values = difference.values;
    if (std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) != values.end())
      differences.push_back(std::move(difference));
  }
  return differences;
}

std::optional<LossDifference> first_loss_difference(const RunMetrics& first, const RunMetrics& second) {
  for (const auto& [step, line] : first.steps) {
    const auto other = second.steps.find(step);
    if (other == second.steps.end() || !line.contains("loss") || !other->second.contains("loss")) continue;
    const double one = line.at("loss"), two = other->second.at("loss");
    if (std::bit_cast<std::uint64_t>(one) != std::bit_cast<std::uint64_t>(two)) return LossDifference{step, one, two};
  }
  return std::nullopt;
}

std::size_t common_steps(const RunMetrics& first, const RunMetrics& second) {
  return static_cast<std::size_t>(std::count_if(first.steps.begin(), first.steps.end(),
                                                [&](const auto& step) { return second.steps.contains(step.first); }));
}

std::vector<ComparedLine> compared_lines(const std::vector<ComparedRun>& runs) {
  LinesOfRuns lines(runs);
  add_results(lines);
  add_price(lines);
  return lines.lines_;
}

}  // namespace troupe
