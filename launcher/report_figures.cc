#include "launcher/report_figures.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/rules/grpo.h"
#include "actors/rules/trainable.h"
#include "launcher/metrics_file.h"

namespace troupe {

using nlohmann::json;

namespace {

AnswerFigures answers_of(const json& line) {
  return {line.at("accuracy"), line.at("greedy"),   line.at("pass"),   line.at("temperature"),
          line.at("pass_k"),   line.at("problems"), line.at("samples")};
}

struct StepFigures {
  std::int64_t tokens = 0, gaps = 0, checked = 0;
  bool skipped = false;
};

struct RolloutFigures {
  std::int64_t answers = 0, checked = 0;
};

struct Told {
  std::map<std::int64_t, StepFigures> steps;
  std::map<std::int64_t, RolloutFigures> rollouts;
};

StepFigures step_of(const Config& config, const json& line) {
  StepFigures f;
  const std::int64_t step = line.at("step");
  f.tokens = line.at("tokens");
  f.skipped = line.at("verdict") == "skip";
  const bool own = config.has_rollouts() && version_of_rollout(config.grpo, rollout_of_step(config.grpo, step)) == step;
  if (!own) return f;
  f.gaps = line.at("gaps");
  f.checked = line.value("targets", std::int64_t{0});
  return f;
}

void read_line(const Config& config, const std::string& kind, const json& line, Told& told, RunFigures& f) {
  if (kind == "step") told.steps[line.at("step")] = step_of(config, line);
  if (kind == "rollout") told.rollouts[line.at("rollout")] = {line.at("answers"), line.at("checked")};
  if (kind == "answers") f.answers[line.at("version")] = answers_of(line);
  if (kind == "evaluation" && line.at("loss").is_number() && line.at("tokens") > 0)
    f.loss[line.at("version")] = line.at("loss");
  if (kind == "stall") ++f.stalls;
  if (kind == "finished") f.ended_by = line.value("reason", "");
  if (kind != "bill") return;
  f.dollars = line.at("cost_dollars");
  f.losses = line.at("losses");
  f.device_hours = line.at("wall_thread_seconds").get<double>() / 3600;
  f.thread_seconds = line.at("thread_seconds").get<std::map<std::string, double>>();
}

void add_up(const Told& told, RunFigures& f) {
  for (const auto& [step, own] : told.steps) {
    f.steps = step + 1;
    f.tokens = own.tokens;
    f.skipped += own.skipped ? 1 : 0;
    f.gaps += own.gaps;
    f.checked += own.checked;
  }
  for (const auto& [rollout, own] : told.rollouts) {
    f.answers_sampled += own.answers;
    f.checked += own.checked;
  }
}

// A phase that only asked has its figures in a file of its own.
void read_evaluation(const std::string& path, RunFigures& f) {
  std::ifstream file(path);
  const json result = file ? json::parse(file, nullptr, false) : json();
  if (!result.is_object()) return;
  const json& all = result.at("all");
  AnswerFigures a;
  a.problems = result.at("problems");
  a.samples = result.at("samples");
  a.temperature = result.at("temperature");
  if (all.contains("accuracy")) a.accuracy = all.at("accuracy").at("value");
  a.greedy = all.at("greedy").at("value");
  const json pass = all.value("pass", json::object());
  for (const auto& [k, estimate] : pass.items()) {
    if (std::stoi(k) > 8 || std::stoi(k) <= a.pass_k) continue;
    a.pass_k = std::stoi(k);
    a.pass = estimate.at("value");
  }
  f.answers[result.value("version", std::int64_t{0})] = a;
}

}  // namespace

RunFigures read_figures(const Config& config, const std::string& folder) {
  RunFigures f;
  Told told;
  for_each_metric(folder + "/metrics.jsonl",
                  [&](const std::string& kind, const json& line) { read_line(config, kind, line, told, f); });
  add_up(told, f);
  if (config.kind == "evaluate") read_evaluation(folder + "/evaluation.json", f);
  f.flops = static_cast<double>(f.tokens) * flops_per_trained_token(config);
  return f;
}

}  // namespace troupe
