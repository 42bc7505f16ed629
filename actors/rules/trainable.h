// Which tensors learn: a pure rule of the configuration. A frozen tensor has its weights and nothing else: no update, no
// moments, no gradient, no part in the norm. No gradient goes below the lowest layer that learns.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/config.h"
#include "kernels/model/parameters.h"
#include "messages/message.h"

namespace troupe {

// An expert as train.experts names it.
std::string expert_name(int layer, int expert);
// {layer, expert} of such a name; empty: it isn't one.
std::optional<std::pair<int, int>> expert_of(const std::string& name);

// While the experts are still to be chosen every one counts as trainable, so that a plan is never too small.
bool is_trainable(const Config& config, const Parameter& parameter);
// Those of `parameters` that are, in the same order.
std::vector<Parameter> trainable_of(const Config& config, const std::vector<Parameter>& parameters);

// Gradients go back to this layer; -1: to the embedding.
int lowest_trained_layer(const Config& config);
inline bool goes_back(const Config& config, int layer) { return layer >= lowest_trained_layer(config); }
// The gradient of a layer's input is needed: by what is below, or by its own dense part.
inline bool passes_gradient(const Config& config, int layer) {
  return !config.has_frozen() || layer > lowest_trained_layer(config);
}

// Elements that learn; floating-point operations that a trained token needs.
std::int64_t trained_parameter_count(const Config& config);
double flops_per_trained_token(const Config& config);

// By token-selection ratio: of each layer the experts with most of its tokens' choices (of equals the first), the fewest
// that together have `threshold` of them all. In the order of layer and number.
std::vector<std::string> choose_experts(const std::vector<ExpertCounts>& counts, double threshold);

}  // namespace troupe
