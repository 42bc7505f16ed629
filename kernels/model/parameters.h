// Every tensor of a model: its Hugging Face name, shape, who owns it, and how it starts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/model/config.h"

namespace troupe {

enum class ParameterKind : std::uint8_t {
  dense,        // owned by every replica's stage actor; gradient in lanes
  expert,       // owned by one expert shard; gradient one strict sum
  router_bias,  // e_score_correction_bias: no gradient; moved by counts
};

struct Parameter {
  std::string name;                 // Hugging Face's
  std::int64_t rows = 1, cols = 1;  // 1-d tensors are (1, n)
  int dimensions = 2;               // 1 or 2; decay applies to 2-d tensors only
  ParameterKind kind = ParameterKind::dense;
  int layer = -1;  // -1: embedding, final norm, head
  int expert = -1;
  float mean = 0, std = 0;  // initial distribution
  std::int64_t elements() const { return rows * cols; }
  friend bool operator==(const Parameter&, const Parameter&) = default;
};

// How weights start. `scaled`: 0.5 / sqrt(fan_in), embedding and router 0.02, o_proj and down_proj divided by
// sqrt(2 layers). `normal`: every matrix initializer_range.
struct Initialization {
  std::string scheme = "scaled";
  double range = 0.006;
};

// All tensors of the model in model order (embedding, layers, norm, head, MTP layer). Tensors that one product reads
// together (q_a|kv_a, q|k|v, gate|up) are neighbours, in that order.
std::vector<Parameter> model_parameters(const ModelConfig& config, const Initialization& initialization = {});

// The same without layers that aren't wanted.
std::vector<Parameter> model_parameters(const ModelConfig& config, const Initialization& initialization,
                                        const std::function<bool(int layer)>& wanted);

// Total and per-token active parameters (embedding look-up not counted as active), router bias left out.
std::int64_t parameter_count(const ModelConfig& config);
std::int64_t active_parameter_count(const ModelConfig& config);
// Forward + backward floating-point operations of one trained token in sequences of `tokens`: 6 x matrix weights that a
// token touches (head once) + attention at 6 * heads * (qk + v) * tokens per layer (no causal discount).
double training_flops_per_token(const ModelConfig& config, std::int64_t tokens);
// The same where not everything learns: for each matrix, which share of the two backward products is needed.
struct BackwardShare {
  double activations = 1, weights = 1;
};
double training_flops_per_token(const ModelConfig& config, std::int64_t tokens,
                                const std::function<BackwardShare(const Parameter&)>& share);

}  // namespace troupe
