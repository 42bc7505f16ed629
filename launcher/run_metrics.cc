#include "launcher/run_metrics.h"

#include <algorithm>
#include <cmath>

#include "launcher/metrics_file.h"

namespace troupe {

using nlohmann::json;

namespace {

MetricLine numbers_of(const json& line) {
  MetricLine numbers;
  for (const auto& [key, value] : line.items()) {
    if (value.is_number()) numbers[key] = value.get<double>();
    if (value.is_null()) numbers[key] = std::nan("");
  }
  return numbers;
}

bool same_shape(const LoadColumn& a, const LoadColumn& b) {
  return a.load.size() == b.load.size() &&
         std::equal(a.load.begin(), a.load.end(), b.load.begin(),
                    [](const auto& p, const auto& q) { return p.size() == q.size(); });
}

void add(LoadColumn& sum, const LoadColumn& more) {
  const double whole = sum.steps + more.steps;
  for (std::size_t l = 0; l < sum.load.size(); ++l)
    for (std::size_t e = 0; e < sum.load[l].size(); ++e)
      sum.load[l][e] = (sum.load[l][e] * sum.steps + more.load[l][e] * more.steps) / whole;
  sum.steps += more.steps;
}

// Each step's rows go to the last column until that holds as many steps as the others.
class LoadReader {
 public:
  void hear(const json& line, RunMetrics& metrics) {
    const auto rows = line.find("expert_rows"), layers = line.find("expert_layers");
    if (rows == line.end() || layers == line.end() || !rows->is_array() || rows->empty()) return;
    LoadColumn column = column_of(line, *rows);
    std::vector<LoadColumn>& all = metrics.load;
    if (!all.empty() && !same_shape(all.back(), column)) return;
    metrics.expert_layers = layers->get<std::vector<std::int64_t>>();
    if (!all.empty() && all.back().steps < width_)
      add(all.back(), column);
    else
      all.push_back(std::move(column));
    if (all.size() > kLoadColumnsMax) halve(all);
  }

 private:
  static LoadColumn column_of(const json& line, const json& rows) {
    LoadColumn column{line.value("step", 0.0), 1, {}};
    for (const json& layer : rows) {
      auto counts = layer.get<std::vector<double>>();
      double sum = 0;
      for (const double count : counts) sum += count;
      for (double& count : counts) count = sum > 0 ? count * static_cast<double>(counts.size()) / sum : 0;
      column.load.push_back(std::move(counts));
    }
    return column;
  }
  void halve(std::vector<LoadColumn>& all) {
    for (std::size_t i = 0; 2 * i < all.size(); ++i) {
      if (i > 0) all[i] = std::move(all[2 * i]);
      if (2 * i + 1 < all.size()) add(all[i], all[2 * i + 1]);
    }
    all.resize((all.size() + 1) / 2);
    width_ *= 2;
  }
  int width_ = 1;
};

}  // namespace

RunMetrics read_run_metrics(const std::string& metrics_path) {
  RunMetrics metrics;
  LoadReader load;
  for_each_metric(metrics_path, [&](const std::string& kind, const json& line) {
    if (kind == "bill") metrics.bill = line;
    if (kind == "finished") metrics.finished = true;
    const char* number = kind == "step" ? "step" : "version";
    if (!line.contains(number) || !line[number].is_number()) return;
    const double at = line[number];
    if (kind == "step") {
      metrics.steps.insert_or_assign(at, numbers_of(line));
      metrics.finished = false;
      load.hear(line, metrics);
    }
    if (kind == "answers") metrics.answers.insert_or_assign(at, numbers_of(line));
    if (kind == "evaluation") metrics.evaluations.insert_or_assign(at, numbers_of(line));
  });
  return metrics;
}

}  // namespace troupe
