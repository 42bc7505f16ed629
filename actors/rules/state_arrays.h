// What a state holds of each parameter, by kind: 0 weights, 1 and 2 AdamW's moments, 3 the reference policy's weights.
// One rule for who keeps it, who sends it, and who writes it to a checkpoint.
#pragma once

#include "actors/config.h"
#include "actors/rules/trainable.h"
#include "kernels/model/parameters.h"

namespace troupe {

constexpr int kStateArrays = 4;

// Of a frozen tensor there are only the weights: they are the reference policy's too.
inline bool has_array(const Config& config, const Parameter& parameter, int kind) {
  if (kind == 0) return true;
  if (!is_trainable(config, parameter)) return false;
  if (kind == 3) return config.has_reference();
  return parameter.kind != ParameterKind::router_bias;
}

// With grpo.reference_every: the policy of this version is the reference from here on.
inline bool becomes_reference(const Config& config, std::int64_t version) {
  return config.has_reference() && config.grpo.reference_every > 0 && version % config.grpo.reference_every == 0;
}

}  // namespace troupe
