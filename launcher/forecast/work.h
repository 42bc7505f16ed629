// What a token asks of the devices that train on it, counted once from the list of tensors: operations, traffic and
// weights of every layer's dense part and of its routed experts. Pure: a cluster and a layout come later (step.h).
#pragma once

#include <cstdint>
#include <vector>

#include "actors/config.h"

namespace troupe {

// Forward operations are two a weight, 2 heads (qk + v) keys for attention; a token sees half of its sequence.
struct PartWork {
  double product_flops = 0;    // a token, forward, of products in train.dtype
  double wide_flops = 0;       // of matrices that stay wide in fp8: router, head, eh_proj, attention's as asked
  double attention_flops = 0;  // of scores and values, causal
  double crossings = 0;        // operands and results of those products, elements a token
  double elements = 0;         // of all its matrices, those of experts that this token skips too
  double moe_layers = 0;       // 1 for a layer with experts
  PartWork& operator+=(const PartWork& more);
  double flops() const { return product_flops + wide_flops + attention_flops; }
};

struct LayerWork {
  PartWork dense, experts;  // experts: of all shards
};

struct ModelWork {
  std::vector<LayerWork> layers;  // multi-token prediction's last, with its own use of the head
  PartWork embedding, head;
  PartWork dense() const;
  PartWork experts() const;
};

// fp8_attention: attention's projections are products in train.dtype, and not wide.
ModelWork work_of(const ModelConfig& model, std::int64_t sequence_tokens, bool fp8_attention);

// Forward and backward operations of a trained token when attention is counted as it is masked: half of the sequence.
// Insights into DeepSeek-V3 (arXiv 2505.09343), table 2, counts so, without multi-token prediction.
double causal_flops_per_token(const ModelConfig& model, std::int64_t sequence_tokens);

// What a device reaches, a second.
struct Rates {
  double product_flops = 0, wide_flops = 0, memory_bytes = 0;
  double element_bytes = 2;  // of an activation
};
Rates rates_of(const HardwareConfig& hardware, const std::string& dtype);

// Seconds of one pass over `tokens`, with `elements` of its weights on the device.
struct PassSeconds {
  double products = 0, traffic = 0;
  double total() const { return products + traffic; }
  PassSeconds& operator+=(const PassSeconds& more);
};
PassSeconds operator*(double times, const PassSeconds& pass);
// Every operand and result of a product crosses the memory twice, with it and with what stands between products.
PassSeconds forward_pass(const PartWork& work, double tokens, double elements, const Rates& rates);
// Gradients of the inputs: what the forward saved is read as well; attention is multiplied two and a half times.
PassSeconds backward_pass(const PartWork& work, double tokens, double elements, const Rates& rates);
// Gradients of the weights, added in float32 to `elements` sums.
PassSeconds weights_pass(const PartWork& work, double tokens, double elements, const Rates& rates);

}  // namespace troupe
