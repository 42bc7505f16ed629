// Multiplications and additions count one each; a transcendental function counts kFunction of them.
// Every operand counts once: what a cache saves or a blocking repeats is the device's affair.
// Spans can't be read here (the simulated device has no data), so an attention's keys are taken as those of equal
// spans: rows / spans keys for each query, the mask not subtracted.
#include "kernels/cost.h"

#include <cmath>

#include "kernels/grouped_product.h"

namespace troupe {

namespace {

constexpr double kFunction = 10;

double bytes(const Tensor& x) {
  return x ? static_cast<double>(x.elements()) * static_cast<double>(bytes_of(x.dtype)) : 0;
}
template <typename... More>
double bytes(const Tensor& x, const More&... more) {
  return bytes(x) + bytes(more...);
}
double elements(const Tensor& x) { return static_cast<double>(x.elements()); }

// To find an element's tile's largest, divide, round and clamp.
constexpr double kQuantize = 4;

// Pairs of (query head, key) that the op visits.
double pairs(const Attention& op) {
  if (op.spans.rows == 0) return 0;
  const double keys = static_cast<double>(op.k.rows) / static_cast<double>(op.spans.rows);
  return static_cast<double>(op.q.rows) * op.heads * keys;
}
double dims(const Attention& op) { return op.own_dim + op.shared_dim; }

struct Count {
  Cost operator()(const Product& op) const {
    const double depth = static_cast<double>(op.transpose_a ? op.a.rows : op.a.cols);
    const double again = op.accumulate ? bytes(op.c) : 0;
    const double tiles = std::ceil(depth / static_cast<double>(kScaledDepth));
    const double quantized = elements(op.a) + (op.b_scales ? 0 : elements(op.b));
    const double scaled = kQuantize * quantized + 3 * elements(op.c) * tiles;
    return {2 * elements(op.c) * depth + (op.a_scaling ? scaled : 0),
            bytes(op.a, op.b, op.b_scales, op.c, op.bias, op.add) + again};
  }
  Cost operator()(const GroupedProduct& op) const {
    Cost total;
    each_product(op, [&](const Product& one) { total += (*this)(one); });
    return total;
  }
  Cost operator()(const Norm& op) const { return {4 * elements(op.x), bytes(op.x, op.weight, op.y, op.inverse_rms)}; }
  Cost operator()(const NormBackward& op) const {
    return {10 * elements(op.x), bytes(op.x, op.weight, op.inverse_rms, op.dy, op.add, op.dx, op.dweight)};
  }
  Cost operator()(const Rope& op) const {
    const double turned = static_cast<double>(op.x.rows) * op.heads * op.dim;
    return {3 * turned, 2 * turned * static_cast<double>(bytes_of(op.x.dtype)) + bytes(op.positions)};
  }
  Cost operator()(const Attention& op) const {
    return {pairs(op) * (2 * (dims(op) + op.v_dim) + kFunction),
            bytes(op.q, op.k, op.k_shared, op.v, op.out, op.row_max, op.row_scale)};
  }
  // Five products: scores again, dP, dq, dk over the key's width or the value's, and dv.
  Cost operator()(const AttentionBackward& op) const {
    const Attention& f = op.forward;
    return {pairs(f) * (6 * dims(f) + 4 * f.v_dim + kFunction),
            bytes(f.q, f.k, f.k_shared, f.v, f.out) + bytes(op.dout, op.dq, op.dk, op.dk_shared, op.dv)};
  }
  Cost operator()(const SwiGlu& op) const { return {(2 + kFunction) * elements(op.h), bytes(op.gate_up, op.h)}; }
  Cost operator()(const SwiGluBackward& op) const {
    return {(10 + kFunction) * elements(op.dh), bytes(op.gate_up, op.dh, op.d_gate_up, op.row_scale, op.dots)};
  }
  Cost operator()(const Router& op) const {
    return {2 * elements(op.scores) * static_cast<double>(op.x.cols) + (2 + kFunction) * elements(op.scores),
            bytes(op.x, op.weight, op.scores, op.indices, op.weights, op.position, op.sorted_token, op.sorted_weight)};
  }
  Cost operator()(const RouterBackward& op) const {
    return {8 * elements(op.scores), bytes(op.scores, op.indices, op.weights, op.position, op.dots, op.dlogits)};
  }
  Cost operator()(const Gather& op) const { return {0, 2 * bytes(op.out) + bytes(op.index)}; }
  Cost operator()(const Scatter& op) const { return {0, 2 * bytes(op.source) + bytes(op.index)}; }
  Cost operator()(const Combine& op) const {
    double moved = bytes(op.position, op.weight, op.add0, op.add1, op.out);
    for (const Tensor& piece : op.pieces) moved += bytes(piece);
    return {2 * elements(op.position) * static_cast<double>(op.out.cols), moved};
  }
  Cost operator()(const ScaleRows& op) const { return {elements(op.x), bytes(op.x, op.scale, op.out)}; }
  Cost operator()(const Embedding& op) const { return {0, 2 * bytes(op.out) + bytes(op.ids)}; }
  Cost operator()(const EmbeddingGradient& op) const { return {elements(op.dx), 3 * bytes(op.dx) + bytes(op.ids)}; }
  Cost operator()(const CrossEntropy& op) const {
    return {(5 + kFunction) * elements(op.logits), bytes(op.logits, op.targets, op.loss, op.dlogits)};
  }
  Cost operator()(const Copy& op) const { return {0, bytes(op.source, op.out)}; }
  Cost operator()(const Add& op) const { return {elements(op.out), bytes(op.a, op.b, op.out)}; }
  Cost operator()(const Fill& op) const { return {0, bytes(op.out)}; }
  Cost operator()(const SumRows& op) const { return {elements(op.x), bytes(op.x, op.out)}; }
  Cost operator()(const SumSquares& op) const { return {2 * elements(op.x), bytes(op.x)}; }
  Cost operator()(const AdamW& op) const {
    return {16 * elements(op.parameter), bytes(op.gradient, op.copy) + 2 * bytes(op.parameter, op.m, op.v)};
  }
  Cost operator()(const Initialize& op) const { return {3 * kFunction * elements(op.out), bytes(op.out)}; }
  Cost operator()(const Sample& op) const { return {(3 + kFunction) * elements(op.logits), bytes(op.logits, op.kept)}; }
  Cost operator()(const PolicyLoss& op) const {
    return {(8 + kFunction) * elements(op.logits),
            bytes(op.logits, op.targets, op.policy, op.results, op.kept, op.dlogits)};
  }
  Cost operator()(const Digest& op) const { return {8 * elements(op.x), bytes(op.x, op.copy)}; }
  Cost operator()(const Quantize& op) const {
    return {kQuantize * elements(op.x), bytes(op.x, op.codes, op.scales, op.turned, op.turned_scales)};
  }
};

}  // namespace

Cost cost(const Op& op) { return std::visit(Count{}, op); }

Cost cost(const Segment& segment) {
  Cost total;
  for (const Op& op : segment.ops) total += cost(op);
  return total;
}

}  // namespace troupe
