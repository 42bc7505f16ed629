#include "launcher/report_figures.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/rules/grpo.h"
#include "actors/rules/trainable.h"

namespace troupe {

using nlohmann::json;

namespace {

AnswerFigures answers_of(const json& line) {
  return {line.at("accuracy"), line.at("greedy"),   line.at("pass"),   line.at("temperature"),
          line.at("pass_k"),   line.at("problems"), line.at("samples")};
}

// A step that was done again after a loss is told again; the last time counts.
void read_step(const Config& config, const json& line, RunFigures& f) {
  const std::int64_t step = line.at("step");
  f.steps = step + 1;
  f.tokens = line.at("tokens");
  f.skipped += line.at("verdict") == "skip" ? 1 : 0;
  const bool own = config.has_rollouts() && version_of_rollout(config.grpo, rollout_of_step(config.grpo, step)) == step;
  if (!own) return;
  f.gaps += line.at("gaps").get<std::int64_t>();
  f.checked += line.value("targets", std::int64_t{0});
}

void read_line(const Config& config, const json& line, RunFigures& f) {
  const std::string kind = line.at("kind");
  if (kind == "step") read_step(config, line, f);
  if (kind == "rollout") {
    f.answers_sampled += line.at("answers").get<std::int64_t>();
    f.checked += line.at("checked").get<std::int64_t>();
  }
  if (kind == "answers") {
    f.after = answers_of(line);
    if (!f.before) f.before = f.after;
  }
  if (kind == "evaluation" && line.at("loss").is_number()) {
    f.loss_after = line.at("loss").get<double>();
    if (!f.loss_before) f.loss_before = f.loss_after;
    f.loss_curve.emplace_back(line.at("version"), *f.loss_after);
  }
  if (kind == "stall") ++f.stalls;
  if (kind == "finished") f.ended_by = line.value("reason", "");
  if (kind != "bill") return;
  f.dollars = line.at("cost_dollars");
  f.losses = line.at("losses");
  f.device_hours = line.at("wall_thread_seconds").get<double>() / 3600;
  f.thread_seconds = line.at("thread_seconds").get<std::map<std::string, double>>();
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
  f.before = f.after = a;
}

}  // namespace

RunFigures read_figures(const Config& config, const std::string& folder) {
  RunFigures f;
  std::ifstream metrics(folder + "/metrics.jsonl");
  for (std::string text; std::getline(metrics, text);) {
    const json line = json::parse(text, nullptr, false);  // the last may be cut off
    if (!line.is_discarded()) read_line(config, line, f);
  }
  if (config.kind == "evaluate") read_evaluation(folder + "/evaluation.json", f);
  f.wall_hours = f.device_hours / std::max(1, config.device.threads) / config.layout.nodes;
  f.flops = static_cast<double>(f.tokens) * flops_per_trained_token(config);
  return f;
}

}  // namespace troupe
