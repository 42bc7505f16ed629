// Every tensor of an op, absent ones too, for whoever moves ops between memories.
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
void visit(Product& o, F& f) {
  each(f, o.a, o.b, o.c, o.bias, o.add);
}
template <typename F>
void visit(GroupedProduct& o, F& f) {
  for (Tensor& matrix : o.b) f(matrix);
  each(f, o.a, o.c);
}
template <typename F>
void visit(Norm& o, F& f) {
  each(f, o.x, o.weight, o.y, o.inverse_rms);
}
template <typename F>
void visit(NormBackward& o, F& f) {
  each(f, o.x, o.weight, o.inverse_rms, o.dy, o.add, o.dx, o.dweight);
}
template <typename F>
void visit(Rope& o, F& f) {
  each(f, o.x, o.positions, o.cosine, o.sine);
}
template <typename F>
void visit(Attention& o, F& f) {
  each(f, o.spans, o.q, o.k, o.k_shared, o.v, o.out, o.row_max, o.row_scale);
}
template <typename F>
void visit(AttentionBackward& o, F& f) {
  visit(o.forward, f);
  each(f, o.dout, o.dq, o.dk, o.dk_shared, o.dv);
}
template <typename F>
void visit(SwiGlu& o, F& f) {
  each(f, o.gate_up, o.h);
}
template <typename F>
void visit(SwiGluBackward& o, F& f) {
  each(f, o.gate_up, o.dh, o.d_gate_up, o.row_scale, o.dots);
}
template <typename F>
void visit(Router& o, F& f) {
  each(f, o.x, o.weight, o.bias, o.scores, o.indices, o.weights, o.position, o.sorted_token, o.sorted_weight, o.counts,
       o.sequence_fraction, o.balance);
}
template <typename F>
void visit(RouterBackward& o, F& f) {
  each(f, o.scores, o.indices, o.weights, o.position, o.dots, o.dlogits, o.sequence_fraction);
}
template <typename F>
void visit(Gather& o, F& f) {
  each(f, o.source, o.index, o.out);
}
template <typename F>
void visit(Scatter& o, F& f) {
  each(f, o.source, o.index, o.out);
}
template <typename F>
void visit(Combine& o, F& f) {
  for (Tensor& piece : o.pieces) f(piece);
  each(f, o.position, o.weight, o.add0, o.add1, o.out);
}
template <typename F>
void visit(ScaleRows& o, F& f) {
  each(f, o.x, o.scale, o.out);
}
template <typename F>
void visit(Embedding& o, F& f) {
  each(f, o.ids, o.table, o.out);
}
template <typename F>
void visit(EmbeddingGradient& o, F& f) {
  each(f, o.ids, o.dx, o.dtable);
}
template <typename F>
void visit(CrossEntropy& o, F& f) {
  each(f, o.logits, o.targets, o.loss, o.dlogits);
}
template <typename F>
void visit(PolicyLoss& o, F& f) {
  each(f, o.logits, o.targets, o.policy, o.results, o.kept, o.dlogits);
}
template <typename F>
void visit(Copy& o, F& f) {
  each(f, o.source, o.out);
}
template <typename F>
void visit(Add& o, F& f) {
  each(f, o.a, o.b, o.out);
}
template <typename F>
void visit(Fill& o, F& f) {
  each(f, o.out);
}
template <typename F>
void visit(SumRows& o, F& f) {
  each(f, o.x, o.out);
}
template <typename F>
void visit(SumSquares& o, F& f) {
  each(f, o.x, o.out, o.bits);
}
template <typename F>
void visit(AdamW& o, F& f) {
  each(f, o.parameter, o.gradient, o.m, o.v, o.copy, o.digest);
}
template <typename F>
void visit(Digest& o, F& f) {
  each(f, o.x, o.copy, o.out);
}
template <typename F>
void visit(Initialize& o, F& f) {
  each(f, o.out);
}
template <typename F>
void visit(Sample& o, F& f) {
  each(f, o.logits, o.counter, o.token, o.logprob, o.kept);
}

}  // namespace op_tensors

// f(Tensor&) for each.
template <typename F>
void for_each_tensor(Op& op, F f) {
  std::visit([&](auto& one) { op_tensors::visit(one, f); }, op);
}

}  // namespace troupe
