#include "kernels/model/rope_table.h"

#include <algorithm>
#include <cmath>

namespace troupe {
namespace {

double mscale(double factor, double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0; }

// The rotation speed of each pair, radians a position.
std::vector<double> frequencies(const ModelConfig& config) {
  const int dim = config.rope_dim();
  std::vector<double> speed(static_cast<std::size_t>(dim / 2));
  for (int i = 0; i < dim / 2; ++i) speed[static_cast<std::size_t>(i)] = std::pow(config.rope_theta, -2.0 * i / dim);
  if (!config.rope_scaling) return speed;
  const RopeScaling& yarn = *config.rope_scaling;
  // The (fractional) index of the pair that makes `turns` full turns over the original context.
  const auto pair_of = [&](double turns) {
    return dim * std::log(yarn.original_max_position_embeddings / (turns * 2 * M_PI)) /
           (2 * std::log(config.rope_theta));
  };
  const double low = std::max(std::floor(pair_of(yarn.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_of(yarn.beta_slow)), dim - 1.0);
  if (low == high) high += 0.001;
  for (int i = 0; i < dim / 2; ++i) {
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    double& f = speed[static_cast<std::size_t>(i)];
    f = f * (1 - ramp) + f / yarn.factor * ramp;
  }
  return speed;
}

}  // namespace

RopeTable make_rope_table(const ModelConfig& config, int positions) {
  RopeTable table;
  table.positions = positions;
  table.half = config.rope_dim() / 2;
  double amplitude = 1;
  if (config.rope_scaling) {
    const RopeScaling& yarn = *config.rope_scaling;
    amplitude = mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim);
  }
  const std::vector<double> speed = frequencies(config);
  for (int p = 0; p < positions; ++p) {
    for (const double f : speed) {
      table.cosine.push_back(static_cast<float>(std::cos(p * f) * amplitude));
      table.sine.push_back(static_cast<float>(std::sin(p * f) * amplitude));
    }
  }
  return table;
}

float softmax_scale(const ModelConfig& config) {
  double scale = 1.0 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (config.rope_scaling && config.rope_scaling->mscale_all_dim != 0) {
    const double m = mscale(config.rope_scaling->factor, config.rope_scaling->mscale_all_dim);
    scale *= m * m;
  }
  return static_cast<float>(scale);
}

}  // namespace troupe
