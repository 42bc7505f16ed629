#include "actors/metrics.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

namespace troupe {

using nlohmann::json;

namespace {

// Entropy of the choice of expert over the step, in nats; log(E) when the load is even.
double choice_entropy(const ExpertCounts& c) {
  double total = 0, sum = 0;
  for (const std::int64_t n : c.counts) total += static_cast<double>(n);
  for (const std::int64_t n : c.counts) {
    if (n == 0) continue;
    const double p = static_cast<double>(n) / total;
    sum -= p * std::log(p);
  }
  return sum;
}

double threads_of(const Config& config) {
  return static_cast<double>(std::max(1, config.device.threads)) * config.layout.nodes;
}

}  // namespace

std::optional<std::int64_t> peak_kib_in(const std::string& status) {
  constexpr std::string_view kName = "\nVmHWM:";
  const std::size_t found = status.find(kName);
  if (found == std::string::npos) return std::nullopt;
  const std::size_t begin = status.find_first_not_of(" \t", found + kName.size());
  std::int64_t kib = 0;
  if (begin == std::string::npos ||
      std::from_chars(status.data() + begin, status.data() + status.size(), kib).ec != std::errc())
    return std::nullopt;
  return kib;
}

// getrusage knows the peak of a process through all programs that it was: a caller's memory would be ours.
double peak_memory_mib() {
  std::ostringstream status;
  status << std::ifstream("/proc/self/status").rdbuf();
  if (const auto kib = peak_kib_in(status.str())) return static_cast<double>(*kib) / 1024;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

double load_ratio(const ExpertCounts& c) {
  std::int64_t total = 0, most = 0;
  for (const std::int64_t n : c.counts) {
    total += n;
    most = std::max(most, n);
  }
  return total > 0 ? static_cast<double>(most) * static_cast<double>(c.counts.size()) / static_cast<double>(total) : 0;
}

std::string step_json(const Config& config, double flops_per_token, const TrainingState& state, const StepPlan& plan,
                      const StepOutcome& outcome, const StepTiming& timing, const std::string& rollout) {
  const double tokens_per_second = timing.seconds > 0 ? static_cast<double>(plan.tokens) / timing.seconds : 0;
  const double peak = config.peak_gflops() * 1e9 * threads_of(config);
  json load = json::array(), entropy = json::array(), layers = json::array(), rows = json::array();
  double worst = 0;
  for (const ExpertCounts& c : outcome.counts) {
    layers.push_back(c.layer);
    rows.push_back(c.counts);
    load.push_back(load_ratio(c));
    entropy.push_back(choice_entropy(c));
    worst = std::max(worst, load_ratio(c));
  }
  const char* verdict = outcome.decision.verdict == Verdict::commit ? "commit"
                        : outcome.decision.verdict == Verdict::skip ? "skip"
                                                                    : "stop";
  json line{{"kind", "step"},
            {"step", plan.step},
            {"steps", config.train.steps},
            {"loss", outcome.losses.loss},
            {"total_loss", outcome.losses.total_loss},
            {"mtp_loss", outcome.losses.mtp_loss},
            {"balance_loss", outcome.losses.balance_loss},
            {"gradient_norm", outcome.decision.gradient_norm},
            {"clip_scale", outcome.decision.clip_scale},
            {"learning_rate", outcome.decision.learning_rate},
            {"verdict", verdict},
            {"tokens", state.tokens},
            {"step_seconds", timing.seconds},
            {"seconds", timing.run_seconds},
            {"tokens_per_second", tokens_per_second},
            {"mfu", tokens_per_second * flops_per_token / peak},
            {"load_max_over_mean", load},
            {"worst_load", worst},
            {"router_entropy", entropy},
            {"expert_layers", layers},
            {"expert_rows", rows},
            {"memory_mib", peak_memory_mib()},
            {"attempt", outcome.decision.attempt}};
  if (!rollout.empty()) {
    const json sampled = json::parse(rollout);
    for (const char* name : {"rollout", "version", "reward", "accuracy", "truncated", "flat_groups", "length_mean"})
      line[name] = sampled.at(name);
    line["kl"] = outcome.losses.kl;
    line["clipped"] = outcome.losses.clipped;
    line["entropy"] = outcome.losses.entropy;
    line["gap"] = outcome.losses.gap_max;
    line["gaps"] = outcome.losses.gaps;
    line["targets"] = outcome.losses.targets;
  }
  return line.dump();
}

std::string evaluation_json(std::int64_t version, const EvaluationTotals& totals, double seconds) {
  json load = json::array();
  double worst = 0;
  for (const ExpertCounts& c : totals.counts) {
    load.push_back(load_ratio(c));
    worst = std::max(worst, load_ratio(c));
  }
  const double loss = totals.targets > 0 ? totals.loss_sum / static_cast<double>(totals.targets) : 0;
  return json{{"kind", "evaluation"},
              {"version", version},
              {"loss", loss},
              {"bits_per_token", loss / std::log(2.0)},
              {"tokens", totals.targets},
              {"load_max_over_mean", load},
              {"worst_load", worst},
              {"seconds", seconds}}
      .dump();
}

std::string experts_json(const std::vector<ExpertCounts>& counts) {
  json layers = json::array();
  for (const ExpertCounts& c : counts) layers.push_back({{"layer", c.layer}, {"counts", c.counts}});
  return json{{"kind", "experts"}, {"layers", layers}}.dump();
}

std::string exact_match_json(const std::vector<WrittenAnswer>& answers) {
  std::size_t right = 0;
  json shown = json::array();
  const auto show = [&](const WrittenAnswer& a) {
    shown.push_back({{"prompt", a.prompt}, {"written", a.text}, {"answer", a.answer}, {"right", a.right}});
  };
  for (const WrittenAnswer& a : answers) right += a.right ? 1 : 0;
  int wrong = 0;
  for (const WrittenAnswer& a : answers)
    if (!a.right && wrong++ < 2) show(a);
  for (std::size_t i = 0; i < answers.size() && shown.size() < 5; ++i)
    if (answers[i].right) show(answers[i]);
  const double share = answers.empty() ? 0 : static_cast<double>(right) / static_cast<double>(answers.size());
  // A model in training may write any byte: what isn't UTF-8 is shown as a replacement character.
  return json{
      {"kind", "exact_match"}, {"problems", answers.size()}, {"right", right}, {"share", share}, {"answers", shown}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Report problem_report(const std::string& sentence) {
  return {"problem", json{{"kind", "problem"}, {"sentence", sentence}}.dump()};
}

std::string state_json(const TrainingState& s) {
  return json{{"version", s.version},           {"updates", s.updates},     {"tokens", s.tokens},
              {"skips_in_row", s.skips_in_row}, {"loss_mean", s.loss_mean}, {"best_evaluation", s.best_evaluation},
              {"best_version", s.best_version}, {"seconds", s.seconds},     {"digests", s.digests},
              {"accuracy", s.accuracy}}
      .dump(1);
}

TrainingState state_from_json(const std::string& text) {
  const json j = json::parse(text);
  TrainingState s;
  s.version = j.at("version");
  s.updates = j.at("updates");
  s.tokens = j.at("tokens");
  s.skips_in_row = j.at("skips_in_row");
  s.loss_mean = j.at("loss_mean");
  s.best_evaluation = j.at("best_evaluation");
  s.best_version = j.at("best_version");
  s.seconds = j.at("seconds");
  s.accuracy = j.value("accuracy", s.accuracy);
  if (j.contains("digests")) s.digests = j.at("digests").get<std::map<std::int64_t, std::uint64_t>>();
  return s;
}

}  // namespace troupe
