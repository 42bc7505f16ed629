#include "actors/owner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "actors/twin_tree.h"

namespace troupe {

namespace {

Dtype copy_type(const Config& config) { return config.is_mixed() ? Dtype::bf16 : Dtype::f32; }

// Inner nodes of the tree over replicas need a place of their own, since what was sent is frozen.
std::size_t arena_elements(std::int64_t elements, int replicas) {
  return tree_arenas(static_cast<std::size_t>(replicas)) *
         static_cast<std::size_t>(part_elements_max(elements, replicas));
}

std::size_t router_bias_elements(const ParameterBlock& block) {
  std::size_t elements = 0;
  for (const Parameter& p : block.parameters())
    elements += p.kind == ParameterKind::router_bias ? static_cast<std::size_t>(p.elements()) : 0;
  return elements;
}

CodedBlock coded_of(const Config& config, const ParameterBlock& block, Owner::Use use) {
  return use == Owner::Use::computes ? CodedBlock(block, config.is_fp8(), config.is_fp8_attention()) : CodedBlock();
}

std::size_t largest_part(const ParameterBlock& block) {
  std::int64_t elements = 0;
  for (const Parameter& p : block.parameters()) elements = std::max(elements, std::min(kPartElements, p.elements()));
  return static_cast<std::size_t>(elements) * sizeof(float);
}

}  // namespace

Owner::Owner(const Context& context, const Config& config, std::vector<Parameter> parameters, int lanes, int replicas,
             std::int64_t extra_elements, Use use)
    : context_(context),
      config_(config),
      block_(std::move(parameters)),
      trained_(trainable_of(config, block_.parameters())),
      coded_(coded_of(config, block_, use)),
      lanes_(lanes),
      accumulated_(trained_.elements() + extra_elements) {
  const OwnerMemory bytes = memory(config, block_, lanes, replicas, extra_elements, use);
  const auto take = [&](std::size_t size) { return context_.allocate(size, Place::device); };
  const auto take_shared = [&](std::size_t size) { return context_.allocate(size, Place::shared); };
  masters_ = take(bytes.weights);
  m_ = take(bytes.moments / 2);
  v_ = take(bytes.moments / 2);
  if (bytes.copies > 0) copies_ = take(bytes.copies);
  if (bytes.codes > 0) codes_ = take(bytes.codes);
  const auto trained = static_cast<std::size_t>(trained_.elements());
  if (bytes.reference > 0) reference_ = take(trained * 4);
  if (bytes.reference > 0 && bytes.copies > 0) reference_copies_ = take(trained * 2);
  gradients_ = take(bytes.gradients);
  squares_ = take_shared(trained_.parameters().size() * sizeof(double));
  bits_ = take_shared(trained_.parameters().size() * sizeof(std::int32_t));
  bias_moves_ = take_shared(router_bias_elements(trained_) * sizeof(float));
  for (const Parameter& p : trained_.parameters()) places_.push_back(block_.index(p.name));
  find_values();
  state_parts_ = state_parts_of(config, block_.parameters());
  if (config.has_rollouts()) cut_digests();
}

void Owner::find_values() {
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const Parameter& p = block_.parameters()[i];
    values_.push_back({floats(masters_) + block_.offset(i), nullptr, nullptr, nullptr});
    for (int kind = 1; kind < kStateArrays; ++kind) {
      const Memory& memory = kind == 1 ? m_ : kind == 2 ? v_ : reference_;
      if (has_array(config_, p, kind))
        values_[i][static_cast<std::size_t>(kind)] = floats(memory) + trained_.offset(trained_.index(p.name));
    }
  }
}

std::vector<StatePart> state_parts_of(const Config& config, const std::vector<Parameter>& parameters) {
  std::vector<StatePart> parts;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    for (int kind = 0; kind < kStateArrays; ++kind)
      for (std::int64_t begin = 0; has_array(config, parameters[i], kind) && begin < parameters[i].elements();
           begin += kPartElements)
        parts.push_back({i, kind, begin, std::min(kPartElements, parameters[i].elements() - begin)});
  return parts;
}

float* Owner::values(std::size_t parameter, int kind) const {
  return values_[parameter][static_cast<std::size_t>(kind)];
}
Tensor Owner::values(const StatePart& part) const {
  return flat(values(part.parameter, part.kind), part.begin, part.count);
}

OwnerMemory Owner::memory(const Config& config, const ParameterBlock& block, int lanes, int replicas,
                          std::int64_t extra_elements, Use use) {
  const auto n = static_cast<std::size_t>(block.elements());
  const ParameterBlock learns(trainable_of(config, block.parameters()));
  const auto trained = static_cast<std::size_t>(learns.elements());
  const std::size_t copy = copy_type(config) == Dtype::bf16 ? 2 : 0;
  OwnerMemory bytes;
  bytes.weights = n * 4;
  bytes.moments = trained * 8;
  const CodedBlock coded = coded_of(config, block, use);
  bytes.copies = n * copy;
  bytes.codes = coded.bytes();
  bytes.reference = config.has_reference() ? trained * (4 + copy) : 0;
  const auto accumulated = static_cast<std::int64_t>(trained) + extra_elements;
  bytes.gradients = 4 * (static_cast<std::size_t>(accumulated * lanes) + arena_elements(accumulated, replicas));
  bytes.shared = learns.parameters().size() * (sizeof(double) + sizeof(std::int32_t)) +
                 router_bias_elements(learns) * sizeof(float) + digest_bytes(config, block, coded) +
                 kPartsAsked * largest_part(block);
  return bytes;
}

Matrix Owner::matrices(const std::string& first, const std::string& last) const {
  if (copies_.data == nullptr) return masters(first, last);
  return coded_.matrix(codes_.data, first, block_.range(copies_.data, Dtype::bf16, first, last));
}
Tensor Owner::masters(const std::string& first, const std::string& last) const {
  return block_.range(masters_.data, Dtype::f32, first, last);
}
Tensor Owner::reference_matrices(const std::string& first, const std::string& last) const {
  if (!trained_.has(first)) return matrices(first, last);
  if (reference_copies_.data == nullptr) return reference_masters(first, last);
  return trained_.range(reference_copies_.data, Dtype::bf16, first, last);
}
Tensor Owner::reference_masters(const std::string& first, const std::string& last) const {
  if (!trained_.has(first)) return masters(first, last);
  return trained_.range(reference_.data, Dtype::f32, first, last);
}
Tensor Owner::accumulators(int lane, const std::string& first, const std::string& last) const {
  return trained_.range(floats(gradients_) + lane * accumulated_, Dtype::f32, first, last);
}
Tensor Owner::extra(int lane, std::int64_t begin, std::int64_t rows, std::int64_t cols) const {
  CHECK(trained_.elements() + begin + rows * cols <= accumulated_, "extra accumulators end at {}", accumulated_);
  return {floats(gradients_) + lane * accumulated_ + trained_.elements() + begin, rows, cols, cols, Dtype::f32};
}
Tensor Owner::lane(int lane) const { return flat(floats(gradients_) + lane * accumulated_, 0, accumulated_); }
Tensor Owner::gradient(std::size_t index) const { return trained_.at(gradients_.data, Dtype::f32, index); }

std::vector<Ops> Owner::fold_lanes() const {
  std::vector<Ops> work;
  if (lanes_ == 1) return work;
  each_piece(accumulated_, [&](std::int64_t begin, std::int64_t count) {
    Ops ops;
    for (int stride = lanes_ / 2; stride >= 1; stride /= 2) {
      for (int l = 0; l < stride; ++l) {
        const Tensor a = flat(floats(gradients_) + l * accumulated_, begin, count);
        ops.push_back(Add{a, flat(floats(gradients_) + (l + stride) * accumulated_, begin, count), a});
      }
    }
    work.push_back(std::move(ops));
  });
  return work;
}

void Owner::give_sums(const SumRange& range, const Payload& out, std::vector<Ops>& work) const {
  each_piece(range.count, [&](std::int64_t begin, std::int64_t count) {
    work.push_back({Copy{flat(floats(gradients_), range.begin + begin, count), flat(out.as<float>(), begin, count)}});
  });
}

void Owner::take_sums(const SumRange& range, const Payload& sums, std::vector<Ops>& work) const {
  each_piece(range.count, [&](std::int64_t begin, std::int64_t count) {
    work.push_back({Copy{flat(sums.as<float>(), begin, count), flat(floats(gradients_), range.begin + begin, count)}});
  });
}

void Owner::add_twins(const SumRange& part, const SumRange& range, const std::vector<const float*>& terms,
                      const Payload& out, std::vector<Ops>& work) const {
  const std::int64_t arena = part_elements_max(accumulated_, static_cast<int>(terms.size()));
  each_piece(range.count, [&](std::int64_t begin, std::int64_t count) {
    const Tensor sum = flat(floats(gradients_), range.begin + begin, count);
    std::vector<Tensor> tensors, arenas;
    for (const float* term : terms)  // read only
      tensors.push_back(term == nullptr ? sum : flat(const_cast<float*>(term), begin, count));
    for (std::size_t level = 0; level < tree_arenas(terms.size()); ++level) {
      const std::int64_t at = lanes_ * accumulated_ + static_cast<std::int64_t>(level) * arena;
      arenas.push_back(flat(floats(gradients_), at + range.begin - part.begin + begin, count));
    }
    const auto own = std::find(terms.begin(), terms.end(), nullptr) - terms.begin();
    Ops ops = add_in_tree(tensors, static_cast<std::size_t>(own), arenas);
    ops.push_back(Copy{sum, flat(out.as<float>(), begin, count)});
    work.push_back(std::move(ops));
  });
}

std::vector<Ops> Owner::measure() const {
  Grains work;
  for (std::size_t i = 0; i < trained_.parameters().size(); ++i) {
    Ops& ops = work.next(trained_.parameters()[i].elements());
    Tensor out{static_cast<double*>(squares_.data) + i, 1, 1, 1, Dtype::f64};
    Tensor bits{static_cast<std::int32_t*>(bits_.data) + i, 1, 1, 1, Dtype::i32};
    if (trained_.parameters()[i].kind != ParameterKind::router_bias) ops.push_back(SumSquares{gradient(i), out, bits});
  }
  return work.take();
}

std::vector<TensorSquares> Owner::squares() const {
  std::vector<TensorSquares> all;
  for (std::size_t i = 0; i < trained_.parameters().size(); ++i) {
    const Parameter& p = trained_.parameters()[i];
    if (p.kind != ParameterKind::router_bias)
      all.push_back(
          {p.name, static_cast<const double*>(squares_.data)[i], static_cast<const std::uint32_t*>(bits_.data)[i]});
  }
  return all;
}

std::vector<Ops> Owner::apply(const Decision& decision) {
  Grains work;
  applying_ = true;
  last_decision_ = decision;
  if (decision.verdict == Verdict::commit) begin_writing();
  Ops moves = move_router_bias(decision);
  if (!moves.empty()) work.next(0) = std::move(moves);
  const TrainConfig& t = config_.train;
  AdamW step;
  step.lr = static_cast<float>(decision.learning_rate);
  step.beta1 = static_cast<float>(t.beta1);
  step.beta2 = static_cast<float>(t.beta2);
  step.eps = static_cast<float>(t.epsilon);
  step.bias1 = static_cast<float>(1 - std::pow(t.beta1, static_cast<double>(decision.updates)));
  step.bias2 = static_cast<float>(1 - std::pow(t.beta2, static_cast<double>(decision.updates)));
  step.clip_scale = static_cast<float>(decision.clip_scale);
  const auto clear = [&](Ops& ops, std::int64_t begin, std::int64_t count) {
    for (int l = 0; l < lanes_; ++l) ops.push_back(Fill{flat(floats(gradients_) + l * accumulated_, begin, count), 0});
  };
  for (std::size_t j = 0; j < places_.size(); ++j) {
    const std::size_t i = places_[j];
    const Parameter& p = block_.parameters()[i];
    if (p.kind == ParameterKind::router_bias) continue;
    step.weight_decay = p.dimensions == 2 ? static_cast<float>(t.weight_decay) : 0;
    // What is digested is digested piece by piece, the same for all.
    const std::int64_t grain = digest_pieces_.empty() ? piece_of(p.elements()) : kPieceElements;
    for (std::int64_t begin = 0; begin < p.elements(); begin += grain) {
      const std::int64_t count = std::min(grain, p.elements() - begin);
      const std::int64_t master = block_.offset(i) + begin, at = trained_.offset(j) + begin;
      Ops& ops = work.next(count);
      if (!digest_pieces_.empty()) {
        const std::size_t piece = first_piece_[i] + static_cast<std::size_t>(begin / kPieceElements);
        step.digest = digest_cell(written_, piece);
        step.first = digest_pieces_[piece].first;
      }
      step.parameter = flat(floats(masters_), master, count);
      step.gradient = flat(floats(gradients_), at, count);
      step.m = flat(floats(m_), at, count);
      step.v = flat(floats(v_), at, count);
      if (copies_.data != nullptr) step.copy = halves(copies_, master, count);
      if (decision.verdict == Verdict::commit) ops.push_back(step);
      if (becomes_reference(config_, decision.step + 1)) copy_to_reference(ops, master, at, count);
      clear(ops, at, count);
    }
  }
  each_piece(accumulated_ - trained_.elements(), [&](std::int64_t begin, std::int64_t count) {
    clear(work.next(count), trained_.elements() + begin, count);
  });
  return work.take();
}

void Owner::copy_to_reference(Ops& ops, std::int64_t master, std::int64_t begin, std::int64_t count) const {
  ops.push_back(Copy{flat(floats(masters_), master, count), flat(floats(reference_), begin, count)});
  if (reference_copies_.data == nullptr) return;
  ops.push_back(Copy{halves(copies_, master, count), halves(reference_copies_, begin, count)});
}

// Router bias: += rate * sign(total - E * count), by counts of the whole step. Where nothing is lacked -0 is added, which
// leaves every number as it is.
Ops Owner::move_router_bias(const Decision& decision) const {
  Ops ops;
  if (decision.verdict != Verdict::commit) return ops;
  const auto rate = static_cast<float>(config_.bias_rate());
  float* moves = floats(bias_moves_);
  for (const std::size_t i : places_) {
    const Parameter& p = block_.parameters()[i];
    if (p.kind != ParameterKind::router_bias) continue;
    for (const ExpertCounts& layer : decision.counts) {
      if (layer.layer != p.layer) continue;
      const auto experts = static_cast<std::int64_t>(layer.counts.size());
      const std::int64_t total = std::accumulate(layer.counts.begin(), layer.counts.end(), std::int64_t{0});
      for (std::size_t e = 0; e < layer.counts.size(); ++e) {
        const std::int64_t lack = total - experts * layer.counts[e];
        moves[e] = lack == 0 ? -0.0F : lack > 0 ? rate : -rate;
      }
      const Tensor bias = flat(values(i, 0), 0, experts);
      ops.push_back(Add{bias, flat(moves, 0, experts), bias});
    }
    moves += p.elements();
    note_router_bias(ops, i);
  }
  return ops;
}

void Owner::committed(const Decision& decision) {
  CHECK(decision.step == version_, "decision of step {} at state {}", decision.step, version_);
  version_ = decision.step + 1;
  voted_ = applying_ = false;
}

std::vector<Ops> Owner::give_gradient(const Payload& sums) const {
  return by_piece(trained_.elements(), [&](std::int64_t begin, std::int64_t count) {
    return Copy{flat(floats(gradients_), begin, count), flat(sums.as<float>(), begin, count)};
  });
}

std::vector<Ops> Owner::take_gradient(const Payload& sums) const {
  CHECK(sums.size == gradient_bytes(), "a gradient of {} bytes for {} elements", sums.size, trained_.elements());
  return by_piece(trained_.elements(), [&](std::int64_t begin, std::int64_t count) {
    return Copy{flat(sums.as<float>(), begin, count), flat(floats(gradients_), begin, count)};
  });
}

}  // namespace troupe
