// What an op does with each of its tensors: for whoever puts operands elsewhere for a while.
#pragma once

#include <variant>

#include "kernels/op.h"

namespace troupe {

enum class Touch : std::uint8_t {
  read,    // at most read
  write,   // every element is written, whatever stood there
  update,  // every element is read and written
  other    // indices, and what is read or written in part
};

namespace op_touches {

template <typename F>
struct Visit {
  F& f;

  template <typename... Tensors>
  void all(Touch touch, Tensors&... tensors) const {
    (f(tensors, touch), ...);
  }
  void operator()(const Product& op) const {
    all(Touch::read, op.a, op.b, op.bias, op.add, op.b_turned, op.b_scales);
    f(op.c, op.accumulate ? Touch::update : Touch::write);
  }
  void operator()(const GroupedProduct& op) const {
    for (const Tensor& matrix : op.b) f(matrix, Touch::read);
    for (const auto* const more : {&op.b_turned, &op.b_scales})
      for (const Tensor& one : *more) f(one, Touch::read);
    f(op.a, Touch::read);
    f(op.c, Touch::write);
  }
  void operator()(const Norm& op) const {
    all(Touch::read, op.x, op.weight);
    all(Touch::write, op.y, op.inverse_rms);
  }
  void operator()(const NormBackward& op) const {
    all(Touch::read, op.x, op.weight, op.inverse_rms, op.dy, op.add);
    all(Touch::write, op.dx, op.dweight);
  }
  void operator()(const Rope& op) const { all(Touch::other, op.x, op.positions, op.cosine, op.sine); }
  void operator()(const Attention& op) const {
    all(Touch::other, op.spans, op.q, op.k, op.k_shared, op.v, op.out, op.row_max, op.row_scale);
  }
  void operator()(const AttentionBackward& op) const {
    (*this)(op.forward);
    all(Touch::other, op.dout, op.dq, op.dk, op.dk_shared, op.dv);
  }
  void operator()(const SwiGlu& op) const {
    f(op.gate_up, Touch::read);
    f(op.h, Touch::write);
  }
  void operator()(const SwiGluBackward& op) const {
    all(Touch::read, op.gate_up, op.dh, op.row_scale);
    all(Touch::write, op.d_gate_up, op.dots);
  }
  void operator()(const Router& op) const {
    all(Touch::other, op.x, op.weight, op.bias, op.scores, op.indices, op.weights, op.position, op.sorted_token,
        op.sorted_weight, op.counts, op.sequence_fraction, op.balance);
  }
  void operator()(const RouterBackward& op) const {
    all(Touch::other, op.scores, op.indices, op.weights, op.position, op.dots, op.dlogits, op.sequence_fraction);
  }
  void operator()(const Gather& op) const {
    all(Touch::other, op.source, op.index);
    f(op.out, Touch::write);
  }
  void operator()(const Scatter& op) const {
    f(op.source, Touch::read);
    all(Touch::other, op.index, op.out);
  }
  void operator()(const Combine& op) const {
    for (const Tensor& piece : op.pieces) f(piece, Touch::read);
    f(op.position, Touch::other);
    all(Touch::read, op.weight, op.add0, op.add1);
    f(op.out, Touch::write);
  }
  void operator()(const ScaleRows& op) const {
    all(Touch::read, op.x, op.scale);
    f(op.out, Touch::write);
  }
  void operator()(const Embedding& op) const {
    all(Touch::other, op.ids, op.table);
    f(op.out, Touch::write);
  }
  void operator()(const EmbeddingGradient& op) const {
    all(Touch::other, op.ids, op.dtable);
    f(op.dx, Touch::read);
  }
  void operator()(const CrossEntropy& op) const {
    f(op.logits, Touch::read);
    f(op.targets, Touch::other);
    all(Touch::write, op.loss, op.dlogits);
  }
  void operator()(const Copy& op) const {
    f(op.source, Touch::read);
    f(op.out, Touch::write);
  }
  void operator()(const Add& op) const {
    all(Touch::read, op.a, op.b);
    f(op.out, Touch::write);
  }
  void operator()(const Fill& op) const { f(op.out, Touch::write); }
  void operator()(const SumRows& op) const {
    f(op.x, Touch::read);
    f(op.out, op.accumulate ? Touch::update : Touch::write);
  }
  void operator()(const SumSquares& op) const {
    f(op.x, Touch::read);
    all(Touch::other, op.out, op.bits);
  }
  void operator()(const AdamW& op) const {
    f(op.gradient, Touch::read);
    all(Touch::update, op.parameter, op.m, op.v);
    f(op.copy, Touch::write);
    f(op.digest, Touch::other);
  }
  void operator()(const Initialize& op) const { f(op.out, Touch::write); }
  void operator()(const Sample& op) const { all(Touch::other, op.logits, op.counter, op.token, op.logprob, op.kept); }
  void operator()(const PolicyLoss& op) const {
    all(Touch::other, op.logits, op.targets, op.policy, op.results, op.kept, op.dlogits);
  }
  void operator()(const Digest& op) const {
    all(Touch::read, op.x, op.copy);
    f(op.out, Touch::other);
  }
  void operator()(const Quantize& op) const {
    f(op.x, Touch::read);
    all(Touch::other, op.codes, op.scales, op.turned, op.turned_scales, op.digests);  // gaps of rows are written too
  }
};

}  // namespace op_touches

// f(const Tensor&, Touch), absent ones too. A tensor may be several operands: those that are read come before those that
// are written.
template <typename F>
void for_each_touch(const Op& op, F f) {
  std::visit(op_touches::Visit<F>{f}, op);
}

}  // namespace troupe
