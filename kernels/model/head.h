// The last stage's end: final norm, head and cross-entropy, and the multi-token prediction module around its layer.
//   final = norm(x);  loss = CE(head final);                                  hidden.final feeds head and MTP
//   MTP:  joined = [enorm(emb(id_{t+1})) ; hnorm(final_t)];  x_mtp = W_eh joined;  layer;  norm;  the same head
// Rows of the MTP layer: each sequence's first length - 1. An absent accumulator is of a frozen tensor: nothing is added.
#pragma once

#include <vector>

#include "kernels/model/layer.h"

namespace troupe {

struct HeadTensors {
  Tensor norm, head;  // (1,D) f32, (V,D)
};

struct HeadSlot {
  Tensor x;                  // (N, D) f32: the last layer's output
  Tensor norm_scale, final;  // (N,1) f32, (N,D) act
  Tensor logits;             // (N, V) f32
  Tensor d_logits;           // (N, V) act; the same memory as logits in float32
  Tensor loss;               // (N, 1) f32, shared memory
  Tensor d_final;            // (N, D) f32
  Tensor d_norm;             // (1, D) f32
};

HeadSlot carve_head(Carver& carver, const ModelConfig& config, const SlotShape& shape);
HeadSlot first_rows(const HeadSlot& slot, std::int64_t rows);

void head_forward(Ops& ops, const ModelConfig& config, const HeadTensors& w, const HeadSlot& slot);  // x -> final
void head_logits(Ops& ops, const HeadTensors& w, const HeadSlot& slot);                              // final -> logits
// logits -> loss; with gradient: d_logits = scale * (softmax - onehot), d_final.
void head_loss(Ops& ops, const HeadTensors& w, const HeadSlot& slot, const Tensor& targets, float scale, bool gradient);
// d_final -> dx.
void head_backward(Ops& ops, const ModelConfig& config, const HeadTensors& w, const HeadSlot& slot, const Tensor& dx);
void head_weight_gradients(Ops& ops, const HeadSlot& slot, const Tensor& norm_accumulator,
                           const Tensor& head_accumulator);

struct MtpTensors {
  Tensor enorm, hnorm, eh_proj, head_norm;  // (1,D), (1,D), (D,2D), (1,D)
  Tensor embedding;                         // (V,D) f32
};

struct MtpSlot {
  // (N',1) i32, shared memory: the next token, the one after it, the row's position.
  Tensor ids, targets, positions;
  Tensor embedded;                          // (N', D) f32
  Tensor joined, enorm_scale, hnorm_scale;  // (N', 2D) act, (N',1) f32
  Tensor d_x, d_x_act, d_joined;            // (N',D) f32 / act, (N',2D) act
  Tensor d_embedded;                        // (N', D) f32
  Tensor d_enorm, d_hnorm;                  // (sequences, D) f32: each sequence's share
};

MtpSlot carve_mtp(Carver& carver, const ModelConfig& config, const SlotShape& main_shape);
// Rows of the first `sequences` sequences of `length` tokens.
MtpSlot first_sequences(const MtpSlot& slot, std::int64_t sequences, std::int64_t length);

// final (N,D) -> x (N',D) f32: the MTP layer's input.
void mtp_forward(Ops& ops, const ModelConfig& config, const MtpTensors& w, const MtpSlot& slot, const Tensor& final,
                 std::int64_t sequences, const Tensor& x);
// d_x -> d_embedded, and added into d_final.
void mtp_backward(Ops& ops, const ModelConfig& config, const MtpTensors& w, const MtpSlot& slot, const Tensor& final,
                  std::int64_t sequences, const Tensor& d_final);
void mtp_weight_gradients(Ops& ops, const MtpSlot& slot, std::int64_t sequences, const MtpTensors& accumulators);

}  // namespace troupe
