// Where queries, keys and values stand in a layer's projections: column views of (N, in) and (N, kv).
//   MLA:  in = [q or q_latent | kv_latent | shared rope key],  kv = per head [k_nope | v]
//   GQA:  in = [q | k | v]
#pragma once

#include "kernels/model/layer.h"

namespace troupe {

constexpr float kLatentEps = 1e-6F;

struct AttentionWidths {
  int in = 0;    // columns of the fused input projection
  int q_in = 0;  // its first columns: q itself, or q's latent
  int q = 0;     // H * qk_head_dim
  int kv = 0;    // MLA: H * (nope + v); else both of k and v
};
AttentionWidths attention_widths(const ModelConfig& config);

inline Tensor query_of(const ModelConfig& config, const Tensor& in, const Tensor& q_own) {
  return q_own ? q_own : in.columns(0, attention_widths(config).q);
}
inline Tensor latent_of(const ModelConfig& config, const Tensor& in) {
  return in.columns(attention_widths(config).q_in, config.kv_lora_rank);
}
inline Tensor shared_key_of(const ModelConfig& config, const Tensor& in) {
  return in.columns(in.cols - config.qk_rope_head_dim, config.qk_rope_head_dim);
}
inline Tensor keys_and_values_of(const ModelConfig& config, const Tensor& in, const Tensor& kv) {
  return kv ? kv : in.columns(attention_widths(config).q, attention_widths(config).kv);
}

Attention attention_op(const ModelConfig& config, const LayerSlot& slot, const BatchTensors& batch,
                       const LayerCache& cache);
void rope_ops(Ops& ops, const ModelConfig& config, const Tensor& in, const Tensor& q_own, const BatchTensors& batch,
              bool inverse);

}  // namespace troupe
