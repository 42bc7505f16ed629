#include "actors/owner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "actors/checkpoint/safetensors.h"
#include "kernels/base/error.h"
#include "kernels/base/mutant.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr std::int64_t kDrawnElements = 16 * 1024;       // random numbers take some fifty nanoseconds
constexpr std::int64_t kSnapshotElements = 1024 * 1024;  // of one SnapshotPart

Dtype copy_type(const Config& config) { return config.is_mixed() ? Dtype::bf16 : Dtype::f32; }

// Inner nodes of the tree over replicas need a place of their own: what was sent is frozen.
int sum_arenas(int replicas) { return replicas > 2 ? replicas / 2 : 0; }

float* floats(const Memory& memory) { return static_cast<float*>(memory.data); }

Tensor flat(float* data, std::int64_t begin, std::int64_t count) { return {data + begin, 1, count, count, Dtype::f32}; }

// One parameter's stored float32 values.
void load_parameter(const Parameter& p, const SafetensorsReader& weights, const std::string& path, float* out) {
  if (!weights.has(p.name)) {
    if (p.kind != ParameterKind::router_bias)
      throw Error("{}: tensor {} is missing; is it a checkpoint of this model?", path, p.name);
    std::fill_n(out, p.elements(), 0.0F);
    return;
  }
  const std::int64_t found = weights.entries().at(p.name).elements();
  if (found != p.elements())
    throw Error("{}: tensor {} has {} elements, the configuration says {} ({} x {})", path, p.name, found, p.elements(),
                p.rows, p.cols);
  weights.read_f32(p.name, 0, p.elements(), out);
}

}  // namespace

Owner::Owner(const Context& context, const Config& config, std::vector<Parameter> parameters, int lanes, int replicas,
             std::int64_t extra_elements)
    : context_(context),
      config_(config),
      block_(std::move(parameters)),
      trained_(trainable_of(config, block_.parameters())),
      lanes_(lanes),
      accumulated_(trained_.elements() + extra_elements) {
  const OwnerMemory bytes = memory(config, block_, lanes, replicas, extra_elements);
  Device& device = context_.device();
  masters_ = device.allocate(bytes.weights);
  m_ = device.allocate(bytes.moments / 2);
  v_ = device.allocate(bytes.moments / 2);
  if (bytes.copies > 0) copies_ = device.allocate(bytes.copies);
  const auto trained = static_cast<std::size_t>(trained_.elements());
  if (bytes.reference > 0) reference_ = device.allocate(trained * 4);
  if (bytes.reference > 0 && bytes.copies > 0) reference_copies_ = device.allocate(trained * 2);
  gradients_ = device.allocate(bytes.gradients);
  squares_ = device.allocate(trained_.parameters().size() * sizeof(double));
  bits_ = device.allocate(trained_.parameters().size() * sizeof(std::int32_t));
  for (const Parameter& p : trained_.parameters()) places_.push_back(block_.index(p.name));
  find_values();
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

float* Owner::values(std::size_t parameter, int kind) const {
  return values_[parameter][static_cast<std::size_t>(kind)];
}

OwnerMemory Owner::memory(const Config& config, const ParameterBlock& block, int lanes, int replicas,
                          std::int64_t extra_elements) {
  const auto n = static_cast<std::size_t>(block.elements());
  const auto trained = static_cast<std::size_t>(ParameterBlock(trainable_of(config, block.parameters())).elements());
  const std::size_t copy = copy_type(config) == Dtype::bf16 ? 2 : 0;
  OwnerMemory bytes;
  bytes.weights = n * 4;
  bytes.moments = trained * 8;
  bytes.copies = n * copy;
  bytes.reference = config.has_reference() ? trained * (4 + copy) : 0;
  bytes.gradients =
      (trained + static_cast<std::size_t>(extra_elements)) * 4 * static_cast<std::size_t>(lanes + sum_arenas(replicas));
  return bytes;
}

Tensor Owner::matrices(const std::string& first, const std::string& last) const {
  if (copies_.data == nullptr) return masters(first, last);
  return block_.range(copies_.data, Dtype::bf16, first, last);
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

// The parts of the state in a fixed order: each(number, parameter, kind, first element, count).
template <typename Each>
void Owner::each_part(Each each) const {
  std::int32_t number = 0;
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const Parameter& p = block_.parameters()[i];
    for (int kind = 0; kind < kStateArrays; ++kind)
      for (std::int64_t begin = 0; values(i, kind) != nullptr && begin < p.elements(); begin += kSnapshotElements)
        each(number++, i, kind, begin, std::min(kSnapshotElements, p.elements() - begin));
  }
}

Standing Owner::standing(std::uint32_t attempt) const {
  Standing s{attempt, version_, voted_ || applying_, last_decision_.has_value(), {}};
  if (last_decision_) s.decision = *last_decision_;
  return s;
}

void Owner::entered(const Restore& restore) {
  if (!fresh_ && !mutant(Mutant::sums_kept)) std::fill_n(floats(gradients_), accumulated_ * lanes_, 0.0F);
  fresh_ = false;
  parts_.clear();
  voted_ = applying_ = false;
  if (restore.decided) last_decision_ = restore.decision;
}

void Owner::load(const Restore& restore) {
  version_ = -1;
  written_known_ = false;
  last_decision_.reset();
  const SafetensorsReader weights(restore.path);
  for (std::size_t i = 0; i < block_.parameters().size(); ++i)
    load_parameter(block_.parameters()[i], weights, restore.path, floats(masters_) + block_.offset(i));
  load_moments(restore);
  load_reference(restore);
  refresh_copies();
  version_ = restore.version;
}

std::vector<Ops> Owner::draw() {
  version_ = -1;
  written_known_ = false;
  last_decision_.reset();
  clear_moments();
  std::vector<Ops> work;
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const Parameter& p = block_.parameters()[i];
    const Tensor all = block_.at(masters_.data, Dtype::f32, i);
    const std::uint64_t key = random_key(config_.train.seed, "initialize/" + p.name);
    const std::int64_t step = std::max<std::int64_t>(1, kDrawnElements / p.cols);
    for (std::int64_t row = 0; row < p.rows; row += step)
      work.push_back({Initialize{all.row_range(row, std::min(step, p.rows - row)), key, p.mean, p.std,
                                 static_cast<std::uint64_t>(row * p.cols)}});
  }
  return work;
}

void Owner::clear_moments() {
  if (fresh_) return;
  std::fill_n(floats(m_), trained_.elements(), 0.0F);
  std::fill_n(floats(v_), trained_.elements(), 0.0F);
}

void Owner::load_moments(const Restore& restore) {
  clear_moments();
  if (restore.path.empty() || restore.weights_only || mutant(Mutant::moments_not_loaded)) return;
  const SafetensorsReader moments(restore.path + "/optimizer.safetensors");
  for (std::size_t i = 0; i < block_.parameters().size(); ++i) {
    const Parameter& p = block_.parameters()[i];
    if (values(i, 1) == nullptr) continue;
    moments.read_f32(p.name + ".m", 0, p.elements(), values(i, 1));
    moments.read_f32(p.name + ".v", 0, p.elements(), values(i, 2));
  }
}

// A run begins with its own weights as the reference; later ones stand in a file of the checkpoint.
void Owner::load_reference(const Restore& restore) {
  if (reference_.data == nullptr || trained_.parameters().empty()) return;
  if (restore.weights_only) return reference_is_policy();
  const SafetensorsReader reference(restore.path + "/reference.safetensors");
  for (const std::size_t i : places_) load_parameter(block_.parameters()[i], reference, restore.path, values(i, 3));
}

void Owner::reference_is_policy() {
  if (reference_.data == nullptr) return;
  for (const std::size_t i : places_) std::copy_n(values(i, 0), block_.parameters()[i].elements(), values(i, 3));
}

void Owner::refresh_copies() {
  const auto round = [](const Memory& from, const Memory& to, std::int64_t elements) {
    if (to.data == nullptr) return;
    auto* rounded = static_cast<std::uint16_t*>(to.data);
    for (std::int64_t i = 0; i < elements; ++i) rounded[i] = round_to_bf16(floats(from)[i]);
  };
  round(masters_, copies_, block_.elements());
  round(reference_, reference_copies_, trained_.elements());
}

std::vector<std::pair<std::int64_t, std::int64_t>> Owner::pieces() const {
  std::vector<std::pair<std::int64_t, std::int64_t>> all;
  for (std::int64_t begin = 0; begin < accumulated_; begin += kPieceElements)
    all.emplace_back(begin, std::min(kPieceElements, accumulated_ - begin));
  return all;
}

std::vector<Ops> Owner::fold_lanes() const {
  std::vector<Ops> work;
  if (lanes_ == 1) return work;
  for (const auto& [begin, count] : pieces()) {
    Ops ops;
    for (int stride = lanes_ / 2; stride >= 1; stride /= 2) {
      for (int l = 0; l < stride; ++l) {
        const Tensor a = flat(floats(gradients_) + l * accumulated_, begin, count);
        ops.push_back(Add{a, flat(floats(gradients_) + (l + stride) * accumulated_, begin, count), a});
      }
    }
    work.push_back(std::move(ops));
  }
  return work;
}

std::vector<Ops> Owner::fold_replicas(int replica, const std::vector<const float*>& partial) const {
  std::vector<Ops> work;
  const auto replicas = partial.size();
  for (const auto& [begin, count] : pieces()) {
    Ops ops;
    std::vector<Tensor> term;
    for (std::size_t r = 0; r < replicas; ++r) {
      const float* data = static_cast<int>(r) == replica ? floats(gradients_) : partial[r];
      term.push_back(flat(const_cast<float*>(data), begin, count));  // read only: sums go to arenas of their own
    }
    for (std::size_t stride = replicas / 2; stride >= 1; stride /= 2) {
      for (std::size_t r = 0; r < stride; ++r) {
        float* arena = floats(gradients_) + (stride == 1 ? 0 : (static_cast<std::int64_t>(r) + lanes_) * accumulated_);
        const Tensor sum = flat(arena, begin, count);
        ops.push_back(Add{term[r], term[r + stride], sum});
        term[r] = sum;
      }
    }
    work.push_back(std::move(ops));
  }
  return work;
}

std::vector<Ops> Owner::measure() const {
  std::vector<Ops> work;
  std::int64_t weight = 0;
  for (std::size_t i = 0; i < trained_.parameters().size(); ++i) {
    if (work.empty() || weight > kPieceElements) {
      work.emplace_back();
      weight = 0;
    }
    weight += trained_.parameters()[i].elements();
    Tensor out{static_cast<double*>(squares_.data) + i, 1, 1, 1, Dtype::f64};
    Tensor bits{static_cast<std::int32_t*>(bits_.data) + i, 1, 1, 1, Dtype::i32};
    if (trained_.parameters()[i].kind != ParameterKind::router_bias)
      work.back().push_back(SumSquares{gradient(i), out, bits});
  }
  return work;
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
  std::vector<Ops> work;
  applying_ = true;
  last_decision_ = decision;
  if (decision.verdict == Verdict::commit) begin_writing();
  move_router_bias(decision);
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
  std::int64_t weight = kPieceElements + 1;
  for (std::size_t j = 0; j < places_.size(); ++j) {
    const std::size_t i = places_[j];
    const Parameter& p = block_.parameters()[i];
    if (p.kind == ParameterKind::router_bias) continue;
    step.weight_decay = p.dimensions == 2 ? static_cast<float>(t.weight_decay) : 0;
    for (std::int64_t begin = 0; begin < p.elements(); begin += kPieceElements) {
      const std::int64_t count = std::min(kPieceElements, p.elements() - begin);
      const std::int64_t master = block_.offset(i) + begin, at = trained_.offset(j) + begin;
      if (weight > kPieceElements) {
        work.emplace_back();
        weight = 0;
      }
      weight += count;
      if (!digest_pieces_.empty()) {
        const std::size_t piece = first_piece_[i] + static_cast<std::size_t>(begin / kPieceElements);
        step.digest = digest_cell(written_, piece);
        step.first = digest_pieces_[piece].first;
      }
      step.parameter = flat(floats(masters_), master, count);
      step.gradient = flat(floats(gradients_), at, count);
      step.m = flat(floats(m_), at, count);
      step.v = flat(floats(v_), at, count);
      step.copy = {};
      if (copies_.data != nullptr)
        step.copy = {static_cast<std::uint16_t*>(copies_.data) + master, 1, count, count, Dtype::bf16};
      if (decision.verdict == Verdict::commit) work.back().push_back(step);
      if (becomes_reference(config_, decision.step + 1)) copy_to_reference(work.back(), master, at, count);
      clear(work.back(), at, count);
    }
  }
  for (std::int64_t begin = trained_.elements(); begin < accumulated_; begin += kPieceElements) {
    work.emplace_back();
    clear(work.back(), begin, std::min(kPieceElements, accumulated_ - begin));
  }
  return work;
}

void Owner::copy_to_reference(Ops& ops, std::int64_t master, std::int64_t begin, std::int64_t count) const {
  ops.push_back(Copy{flat(floats(masters_), master, count), flat(floats(reference_), begin, count)});
  if (reference_copies_.data == nullptr) return;
  const auto halves = [&](const Memory& memory, std::int64_t at) {
    return Tensor{static_cast<std::uint16_t*>(memory.data) + at, 1, count, count, Dtype::bf16};
  };
  ops.push_back(Copy{halves(copies_, master), halves(reference_copies_, begin)});
}

void Owner::move_router_bias(const Decision& decision) {
  if (decision.verdict != Verdict::commit) return;
  const auto rate = static_cast<float>(config_.bias_rate());
  for (const std::size_t i : places_) {
    const Parameter& p = block_.parameters()[i];
    if (p.kind != ParameterKind::router_bias) continue;
    for (const ExpertCounts& layer : decision.counts) {
      if (layer.layer != p.layer) continue;
      std::int64_t total = 0;
      for (const std::int64_t c : layer.counts) total += c;
      float* bias = floats(masters_) + block_.offset(i);
      for (std::size_t e = 0; e < layer.counts.size(); ++e) {
        const std::int64_t lack = total - static_cast<std::int64_t>(layer.counts.size()) * layer.counts[e];
        if (lack != 0) bias[e] += lack > 0 ? rate : -rate;
      }
    }
    note_router_bias(i);
  }
}

void Owner::committed(const Decision& decision) {
  CHECK(decision.step == version_, "decision of step {} at state {}", decision.step, version_);
  version_ = decision.step + 1;
  voted_ = applying_ = false;
}

void Owner::drawn(std::int64_t version) {
  reference_is_policy();
  hold(version);
}

void Owner::hold(std::int64_t version) {
  written_known_ = false;
  refresh_copies();
  version_ = version;
}

std::int32_t Owner::state_parts() const {
  std::int32_t count = 0;
  each_part([&](auto...) { ++count; });
  return count;
}

SnapshotPart Owner::state_part(std::int32_t part, std::uint32_t attempt) const {
  SnapshotPart out;
  each_part([&](std::int32_t number, std::size_t i, int kind, std::int64_t begin, std::int64_t count) {
    if (number != part) return;
    out = {version_, attempt, block_.parameters()[i].name,
           kind,     begin,   context_.pool().take(static_cast<std::size_t>(count) * 4)};
    std::memcpy(out.values.data.get(), values(i, kind) + begin, out.values.size);
  });
  return out;
}

Payload Owner::gradient_payload() const {
  if (trained_.elements() == 0) return {};
  Payload sums = context_.pool().take(static_cast<std::size_t>(trained_.elements()) * 4);
  std::memcpy(sums.data.get(), gradients_.data, sums.size);
  return sums;
}

void Owner::take_gradient(const Payload& sums) {
  CHECK(sums.size == static_cast<std::size_t>(trained_.elements()) * 4, "a gradient of {} bytes for {} elements",
        sums.size, trained_.elements());
  if (sums.size > 0) std::memcpy(gradients_.data, sums.data.get(), sums.size);
}

void Owner::take_part(const SnapshotPart& part) {
  fresh_ = false;
  const std::size_t i = block_.index(part.name);
  if (mutant(Mutant::moments_not_fetched) && part.kind == 2) return;
  if (mutant(Mutant::router_bias_not_fetched) && block_.parameters()[i].kind == ParameterKind::router_bias) return;
  CHECK(part.kind >= 0 && part.kind < kStateArrays && values(i, part.kind) != nullptr && part.offset >= 0 &&
            part.offset + static_cast<std::int64_t>(part.values.size / 4) <= block_.parameters()[i].elements(),
        "a part of {} that doesn't fit", part.name);
  std::memcpy(values(i, part.kind) + part.offset, part.values.data.get(), part.values.size);
}

// A part of this very version that a save before left on its way to the disk is sent again: there is no second copy.
std::vector<Ops> Owner::begin_snapshot(std::uint32_t attempt) {
  std::vector<Ops> work;
  if (std::exchange(snapshot_version_, version_) != version_) snapshot_.clear();
  snapshot_.resize(static_cast<std::size_t>(state_parts()));
  each_part([&](std::int32_t number, std::size_t i, int kind, std::int64_t begin, std::int64_t count) {
    std::weak_ptr<std::byte>& known = snapshot_[static_cast<std::size_t>(number)];
    Payload copied{known.lock(), static_cast<std::size_t>(count) * 4};
    if (!copied.data) {
      copied = context_.pool().take(copied.size);
      known = copied.data;
      work.push_back({Copy{flat(values(i, kind), begin, count), flat(copied.as<float>(), 0, count)}});
    }
    parts_.push_back({version_, attempt, block_.parameters()[i].name, kind, begin, std::move(copied)});
  });
  return work;
}

}  // namespace troupe
