// A transformer layer as segments: lists of ops between two messages' needs, cut where rows travel to the experts.
//
//   attention:  z1 = norm(x);  u = x + W_o attention(rope(project(z1)));  z2 = norm(u);  router(z2), rows by expert
//   mlp:        mlp_out = W_down swiglu(W_gate|up z2), of the dense layer or of the shared experts
//   combine:    next x = u + mlp_out (+ sum_k weight_k expert_k(z2))
//
// and backward in reverse. Activations live in a LayerSlot per (microbatch slot, layer) until the weight gradients are
// done. Letters: N rows, D hidden, E experts, K per token, I intermediate, H heads. "act" is the activation type.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/model/carver.h"
#include "kernels/model/config.h"
#include "kernels/model/matrix.h"
#include "kernels/op.h"

namespace troupe {

// One layer's weights, or its gradient accumulators: the same names either way. Absent tensors are empty.
struct LayerTensors {
  Tensor input_norm, in_bias, q_norm, kv_norm, post_norm;
  Matrix in_proj;          // (q_a|kv_a), (q|kv_a) or (q|k|v) rows
  Matrix q_b, kv_b, o;     // multi-head latent attention (o: both kinds)
  Tensor gate, gate_bias;  // router: (E, D) f32, (1, E) f32
  Matrix gate_up, down;    // (2I, D), (D, I): the MLP or the shared experts
};

// lookup(first, last): the rows of consecutive tensors `first`..`last` as one; an empty one if there is none.
using TensorLookup = std::function<Matrix(const std::string& first, const std::string& last)>;
// `matrices` serves what products read (bfloat16 copies in mixed precision), `masters` norms, biases and the router.
LayerTensors bind_layer(const ModelConfig& config, int layer, const TensorLookup& matrices,
                        const TensorLookup& masters);

// What shapes a slot.
struct SlotShape {
  std::int64_t rows = 0;       // tokens of a microbatch
  std::int64_t sequences = 0;  // rows / sequences = tokens of a sequence
  Dtype act = Dtype::f32;
  bool fp8 = false, fp8_attention = false;  // products of the MLP, of attention's projections, read E4M3
};

struct LayerSlot {
  bool fp8 = false, fp8_attention = false;  // as the shape says
  // Kept from forward to the weight gradients.
  Tensor x;                              // (N, D) f32, the layer's input
  Tensor norm1_scale, z1, in;            // (N,1) f32, (N,D), (N, in_proj rows); rope in place
  Tensor q_norm_scale, q_latent, q_own;  // q_own: (N, H*qk), absent without q_lora
  Tensor kv_norm_scale, kv_latent, kv;   // kv: (N, H*(nope+v))
  Tensor attended, row_max, row_scale;   // (N, H*v), (N,H) f32
  Tensor u, norm2_scale, z2;             // (N,D) f32, (N,1), (N,D)
  Tensor gate_up, h, mlp_out;            // (N,2I), (N,I), (N,D) f32
  Tensor scores, indices, weights, position, sorted_token, sorted_weight, sequence_fraction;
  Tensor counts, balance;  // (1, E) i32, (1, sequences) f32: shared memory
  // Gradients kept for the weight gradients. *_act: the product operand, the same memory in float32.
  Tensor g, g_act;    // dL/d(layer output), (N,D) f32 / act
  Tensor du, du_act;  // dL/du
  Tensor d_gate_up, d_logits, d_q_own, d_kv, d_in;
  Tensor d_input_norm, d_post_norm, d_q_norm, d_kv_norm;  // the microbatch's share, (1, n) f32
};

// Scratch of a slot, shared by its layers: nothing in it outlives a segment chain of one layer.
struct SlotScratch {
  Tensor g, du;                         // bfloat16 runs: the float32 residual gradients
  Tensor dz, d_attended, d_latent, dh;  // (N,D) f32, (N,H*v), (N,max latent), (N,max I)
  Tensor dots;                          // (N*K, 1) f32
};

SlotScratch carve_scratch(Carver& carver, const ModelConfig& config, const SlotShape& shape);
LayerSlot carve_layer(Carver& carver, const ModelConfig& config, int layer, const SlotShape& shape,
                      const SlotScratch& scratch);
// With recomputation layers share the memory of everything that a backward can compute again (`shared`, of the same
// kind of layer); only the input, the output's gradient and the routing are a layer's own.
LayerSlot carve_kept(Carver& carver, const ModelConfig& config, int layer, const SlotShape& shape,
                     const SlotScratch& scratch, const LayerSlot& shared);
// The same memory seen as a smaller batch: `rows` tokens in `sequences` sequences.
LayerSlot first_rows(const LayerSlot& slot, std::int64_t rows, std::int64_t sequences);
SlotScratch first_rows(const SlotScratch& scratch, std::int64_t rows);

// What a microbatch brings along, the same for all layers.
struct BatchTensors {
  Tensor ids, targets, positions, spans;  // i32
  Tensor cosine, sine;                    // (P, rope_dim / 2) f32
};

// Keys and values of past tokens, (cache rows, width) in act; rows are written through `rows`.
struct LayerCache {
  Tensor kv;      // MLA: (C, H*(nope+v)); else (C, (k|v) widths)
  Tensor k_rope;  // MLA: (C, rope)
  Tensor rows;    // (N, 1) i32: where each row goes; empty: no cache, keys are the batch's own
};

// x -> u, z2 and, in an MoE layer, the routing. reuse_routing: recomputation takes the indices as they are.
void attention_forward(Ops& ops, const ModelConfig& config, int layer, const LayerTensors& w, const LayerSlot& slot,
                       const BatchTensors& batch, const LayerCache& cache = {}, bool reuse_routing = false);
// z2 -> mlp_out.
void mlp_forward(Ops& ops, const LayerTensors& w, const LayerSlot& slot);
// next_x = u + mlp_out + sum_k weight * pieces.
void combine_forward(Ops& ops, const LayerSlot& slot, const RecycledVector<Tensor>& pieces, const Tensor& next_x);

// g -> g_act (a copy in mixed precision).
void begin_backward(Ops& ops, const LayerSlot& slot);
// g_act -> d_gate_up, scratch.dz.
void mlp_backward(Ops& ops, const LayerTensors& w, const LayerSlot& slot, const SlotScratch& scratch);
// The routed experts' answers join: pieces hold dx rows, dot_pieces the dots, in sorted order.
struct RoutedGradients {
  RecycledVector<Tensor> pieces, dots;
  bool near = false;  // ops may read the dots where they are
  float balance_scale = 0;
};
void routed_backward(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot,
                     const SlotScratch& scratch, const RoutedGradients& routed);
// scratch.dz, g -> du -> dx: dL/d(layer input), written to previous_g.
void attention_backward(Ops& ops, const ModelConfig& config, const LayerTensors& w, const LayerSlot& slot,
                        const SlotScratch& scratch, const BatchTensors& batch, const Tensor& previous_g);
// Everything above into the lane's accumulators: products over tokens in order, norms by the microbatch's share.
void weight_gradients(Ops& ops, const LayerSlot& slot, const LayerTensors& accumulators);

}  // namespace troupe
