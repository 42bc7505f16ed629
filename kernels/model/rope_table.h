// Cosines and sines of the rotary embedding, with YaRN's interpolation (formulas: DeepSeek-V3 inference code).
#pragma once

#include <vector>

#include "kernels/model/config.h"

namespace troupe {

struct RopeTable {
  std::vector<float> cosine, sine;  // (positions, rope_dim / 2), times YaRN's mscale ratio
  int positions = 0, half = 0;
};

RopeTable make_rope_table(const ModelConfig& config, int positions);

// (qk_head_dim)^-0.5, times mscale(factor, mscale_all_dim)^2 under YaRN.
float softmax_scale(const ModelConfig& config);

}  // namespace troupe
