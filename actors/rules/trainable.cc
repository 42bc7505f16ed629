#include "actors/rules/trainable.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

namespace troupe {

std::string expert_name(int layer, int expert) { return fmt::format("{}.{}", layer, expert); }

std::optional<std::pair<int, int>> expert_of(const std::string& name) {
  int layer = 0, expert = 0;
  const char *begin = name.data(), *end = begin + name.size();
  const auto first = std::from_chars(begin, end, layer);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '.') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, expert);
  if (second.ec != std::errc{} || second.ptr != end || name != expert_name(layer, expert)) return std::nullopt;
  return std::pair(layer, expert);
}

bool is_trainable(const Config& config, const Parameter& parameter) {
  if (!config.has_frozen()) return true;
  if (parameter.kind != ParameterKind::expert) return false;
  if (config.chooses_experts()) return true;
  const auto& names = config.train.experts;
  return std::find(names.begin(), names.end(), expert_name(parameter.layer, parameter.expert)) != names.end();
}

std::vector<Parameter> trainable_of(const Config& config, const std::vector<Parameter>& parameters) {
  std::vector<Parameter> some;
  for (const Parameter& p : parameters)
    if (is_trainable(config, p)) some.push_back(p);
  return some;
}

int lowest_trained_layer(const Config& config) {
  if (!config.has_frozen()) return -1;
  if (config.chooses_experts()) return config.model.first_k_dense_replace;
  int lowest = config.model.layers_with_mtp();
  for (const std::string& name : config.train.experts)
    if (const auto expert = expert_of(name)) lowest = std::min(lowest, expert->first);
  return lowest;
}

std::int64_t trained_parameter_count(const Config& config) {
  std::int64_t count = 0;
  for (const Parameter& p : model_parameters(config.model))
    if (p.kind != ParameterKind::router_bias && is_trainable(config, p)) count += p.elements();
  return count;
}

double flops_per_trained_token(const Config& config) {
  if (!config.has_frozen()) return training_flops_per_token(config.model, config.train.sequence_length);
  std::map<int, double> trained;  // experts, by layer
  for (const std::string& name : config.train.experts)
    if (const auto expert = expert_of(name)) ++trained[expert->first];
  const auto share = [&](const Parameter& p) {
    BackwardShare back{p.layer < 0 || passes_gradient(config, p.layer) ? 1.0 : 0.0, 0};
    if (p.kind == ParameterKind::expert && trained.contains(p.layer))
      back.weights = trained[p.layer] / config.model.n_routed_experts;
    return back;
  };
  return training_flops_per_token(config.model, config.train.sequence_length, share);
}

std::vector<std::string> choose_experts(const std::vector<ExpertCounts>& counts, double threshold) {
  std::vector<std::string> chosen;
  for (const ExpertCounts& layer : counts) {
    std::vector<int> order(layer.counts.size());
    std::iota(order.begin(), order.end(), 0);
    const auto of = [&](int expert) { return layer.counts[static_cast<std::size_t>(expert)]; };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return of(a) > of(b); });
    const auto total = static_cast<double>(std::accumulate(layer.counts.begin(), layer.counts.end(), std::int64_t{0}));
    std::int64_t reached = 0;
    std::size_t count = 0;
    while (count < order.size() && static_cast<double>(reached) < threshold * total) reached += of(order[count++]);
    std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
    for (std::size_t i = 0; i < count; ++i) chosen.push_back(expert_name(layer.layer, order[i]));
  }
  return chosen;
}

}  // namespace troupe
