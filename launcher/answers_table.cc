// The result of an evaluation as a person reads it: a row a task and level, and what follows from all of them.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launcher/answers_figures.h"

namespace troupe {

using nlohmann::json;

namespace {

std::string percent(const json& e) {
  return fmt::format("{:5.1f} [{:5.1f},{:6.1f}]", 100 * e.at("value").get<double>(), 100 * e.at("low").get<double>(),
                     100 * e.at("high").get<double>());
}

std::string percent_of(const json& figures, const char* name) {
  return figures.contains(name) ? percent(figures.at(name)) : fmt::format("{:>20}", "-");
}

std::string percent_of(const json& figures, const char* name, const std::string& k) {
  const bool there = figures.contains(name) && figures.at(name).contains(k);
  return there ? percent(figures.at(name).at(k)) : fmt::format("{:>20}", "-");
}

std::string row(const std::string& name, const json& f, const std::string& k) {
  return fmt::format("{:<16}{:>8}  {}  {}  {}  {}  {:8.3f}  {:6.1f}  {:5.1f}\n", name, f.at("problems").get<int>(),
                     percent_of(f, "accuracy"), percent_of(f, "greedy"), percent_of(f, "pass", k),
                     percent_of(f, "consensus", k), f.at("reward").at("value").get<double>(),
                     f.at("length").at("mean").at("value").get<double>(),
                     100 * f.at("truncated").at("value").get<double>());
}

// The k of pass@k, the smallest first.
std::vector<int> ks_of(const json& figures) {
  std::vector<int> ks;
  if (figures.contains("pass"))
    for (const auto& [k, estimate] : figures.at("pass").items()) ks.push_back(std::stoi(k));
  std::sort(ks.begin(), ks.end());
  return ks;
}

std::string by_k(const json& all, const std::vector<int>& ks) {
  std::string text;
  for (const char* name : {"pass", "consensus"}) {
    text += fmt::format("{:<10}", name[0] == 'p' ? "pass@" : "cons@");
    for (const int k : ks)
      text += fmt::format("  {}: {:.1f} %", k, 100 * all.at(name).at(std::to_string(k)).at("value").get<double>());
    text += "\n";
  }
  return text;
}

std::string compared(const json& comparison) {
  std::string text = fmt::format("against {}, the same {} problems (this - other, 95 %, p by sign flips)\n",
                                 comparison.at("with").get<std::string>(), comparison.at("problems").get<int>());
  for (const char* name : {"accuracy", "greedy", "reward"}) {
    if (!comparison.contains(name)) continue;
    const json& c = comparison.at(name);
    const bool share = std::string(name) != "reward";
    const double scale = share ? 100 : 1;
    text += fmt::format("  {:<9} {:+.{}f} [{:+.{}f}, {:+.{}f}]{}  p = {:.4f}  better on {}, worse on {}\n", name,
                        scale * c.at("value").get<double>(), share ? 1 : 3, scale * c.at("low").get<double>(),
                        share ? 1 : 3, scale * c.at("high").get<double>(), share ? 1 : 3, share ? " points" : "",
                        c.at("p_value").get<double>(), c.at("better").get<int>(), c.at("worse").get<int>());
  }
  return text;
}

}  // namespace

std::string figures_table(const json& result) {
  const json& all = result.at("all");
  const std::vector<int> ks = ks_of(all);
  const std::string k = ks.empty() ? "" : std::to_string(ks.back());
  std::string text =
      fmt::format("{:<16}{:>8}  {:>20}  {:>20}  {:>20}  {:>20}  {:>8}  {:>6}  {:>5}\n", "", "problems", "sampled %",
                  "greedy %", "pass@" + k + " %", "cons@" + k + " %", "reward", "tokens", "cut %");
  for (const auto& [name, figures] : result.at("by_level").items()) text += row(name, figures, k);
  const std::size_t tasks = result.at("by_task").size();
  if (tasks > 1 && tasks < result.at("by_level").size())
    for (const auto& [name, figures] : result.at("by_task").items()) text += row(name, figures, k);
  text += row("all", all, k);
  if (!ks.empty()) text += by_k(all, ks);
  const json& length = all.at("length");
  text += fmt::format("tokens      mean {:.1f}, median {:.0f}, p90 {:.0f}, max {:.0f}; formatted {:.1f} %\n",
                      length.at("mean").at("value").get<double>(), length.at("median").get<double>(),
                      length.at("p90").get<double>(), length.at("max").get<double>(),
                      100 * all.at("formatted").at("value").get<double>());
  if (result.contains("reference"))
    text += fmt::format("reference   perplexity {:.3f} of the given solutions' {} tokens\n",
                        result.at("reference").at("perplexity").get<double>(),
                        result.at("reference").at("tokens").get<std::int64_t>());
  if (result.contains("comparison")) text += compared(result.at("comparison"));
  return text;
}

}  // namespace troupe
