// Expert-specialized fine-tuning, train.experts_threshold: which experts this run's own data uses. The starting weights
// see some of its training tokens once, by the production actors in evaluation; the same data chooses the same experts.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"
#include "messages/message.h"

namespace troupe {

struct ChosenExperts {
  std::vector<std::string> names;  // as train.experts has them
  std::string json;                // a line for metrics.jsonl
  std::string text;                // for a person
};
// REQUIRES: config.chooses_experts(). Throws Error: no data, or no such weights.
ChosenExperts choose_experts(const Config& config, const Recover& begin);

}  // namespace troupe
