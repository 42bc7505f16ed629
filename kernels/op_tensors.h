// Every tensor of an op, by reference: for whoever looks at operands, or puts them elsewhere, whatever the op is.
#pragma once

#include <variant>

#include "kernels/op.h"

namespace troupe {

namespace op_tensors {

template <typename F, typename... Tensors>
void each(F& f, Tensors&... tensors) {
  (f(tensors), ...);
}

template <typename F>
struct Visit {
  F& f;

  void operator()(Product& op) const { each(f, op.a, op.b, op.c, op.bias, op.add, op.b_turned, op.b_scales); }
  void operator()(GroupedProduct& op) const {
    for (Tensor& matrix : op.b) f(matrix);
    for (auto* const more : {&op.b_turned, &op.b_scales})
      for (Tensor& one : *more) f(one);
    each(f, op.a, op.c);
  }
  void operator()(Norm& op) const { each(f, op.x, op.weight, op.y, op.inverse_rms); }
  void operator()(NormBackward& op) const {
    each(f, op.x, op.weight, op.inverse_rms, op.dy, op.add, op.dx, op.dweight);
  }
  void operator()(Rope& op) const { each(f, op.x, op.positions, op.cosine, op.sine); }
  void operator()(Attention& op) const {
    each(f, op.spans, op.q, op.k, op.k_shared, op.v, op.out, op.row_max, op.row_scale);
  }
  void operator()(AttentionBackward& op) const {
    (*this)(op.forward);
    each(f, op.dout, op.dq, op.dk, op.dk_shared, op.dv);
  }
  void operator()(SwiGlu& op) const { each(f, op.gate_up, op.h); }
  void operator()(SwiGluBackward& op) const { each(f, op.gate_up, op.dh, op.d_gate_up, op.row_scale, op.dots); }
  void operator()(Router& op) const {
    each(f, op.x, op.weight, op.bias, op.scores, op.indices, op.weights, op.position, op.sorted_token, op.sorted_weight,
         op.counts, op.sequence_fraction, op.balance);
  }
  void operator()(RouterBackward& op) const {
    each(f, op.scores, op.indices, op.weights, op.position, op.dots, op.dlogits, op.sequence_fraction);
  }
  void operator()(Gather& op) const { each(f, op.source, op.index, op.out); }
  void operator()(Scatter& op) const { each(f, op.source, op.index, op.out); }
  void operator()(Combine& op) const {
    for (Tensor& piece : op.pieces) f(piece);
    each(f, op.position, op.weight, op.add0, op.add1, op.out);
  }
  void operator()(ScaleRows& op) const { each(f, op.x, op.scale, op.out); }
  void operator()(Embedding& op) const { each(f, op.ids, op.table, op.out); }
  void operator()(EmbeddingGradient& op) const { each(f, op.ids, op.dx, op.dtable); }
  void operator()(CrossEntropy& op) const { each(f, op.logits, op.targets, op.loss, op.dlogits); }
  void operator()(Copy& op) const { each(f, op.source, op.out); }
  void operator()(Add& op) const { each(f, op.a, op.b, op.out); }
  void operator()(Fill& op) const { each(f, op.out); }
  void operator()(SumRows& op) const { each(f, op.x, op.out); }
  void operator()(SumSquares& op) const { each(f, op.x, op.out, op.bits); }
  void operator()(AdamW& op) const { each(f, op.parameter, op.gradient, op.m, op.v, op.copy, op.digest); }
  void operator()(Initialize& op) const { each(f, op.out); }
  void operator()(Sample& op) const { each(f, op.logits, op.counter, op.token, op.logprob, op.kept); }
  void operator()(PolicyLoss& op) const { each(f, op.logits, op.targets, op.policy, op.results, op.kept, op.dlogits); }
  void operator()(Digest& op) const { each(f, op.x, op.copy, op.out); }
  void operator()(Quantize& op) const { each(f, op.x, op.codes, op.scales, op.turned, op.turned_scales, op.digests); }
};

}  // namespace op_tensors

// f(Tensor&), absent ones too.
template <typename F>
void for_each_tensor(Op& op, F f) {
  std::visit(op_tensors::Visit<F>{f}, op);
}

}  // namespace troupe
