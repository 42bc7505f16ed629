// The weights of a part of the model that is timed, drawn and updated as an owner of such weights does (actors/owner.cc).

#include "actors/owner.h"
#include "kernels/base/random.h"
#include "kernels/ready_heap.h"
#include "launcher/bench_model.h"

namespace troupe {

namespace {

constexpr float kLearningRate = 1e-6F;  // the weights stay what they are, nearly

Tensor flat(const Memory& memory, std::int64_t begin, std::int64_t count, Dtype dtype) {
  return {static_cast<char*>(memory.data) + static_cast<std::size_t>(begin) * bytes_of(dtype), 1, count, count, dtype};
}

// So many elements as rows of one width, and what is left.
std::vector<Tensor> rows_of(const Memory& memory, std::int64_t begin, std::int64_t count, Dtype dtype) {
  constexpr std::int64_t kCols = 1024;
  std::vector<Tensor> all;
  const std::int64_t rows = count / kCols, left = count % kCols;
  if (rows > 0) all.push_back({flat(memory, begin, kCols, dtype).data, rows, kCols, kCols, dtype});
  if (left > 0) all.push_back(flat(memory, begin + rows * kCols, left, dtype));
  return all;
}

}  // namespace

BenchWeights::BenchWeights(Device& device, const Config& config, std::vector<Parameter> parameters)
    : config_(config), block_(std::move(parameters)), coded_(block_, config.is_fp8(), config.is_fp8_attention()) {
  const auto elements = static_cast<std::size_t>(block_.elements());
  masters_ = device.allocate(elements * 4, Place::device);
  m_ = device.allocate(elements * 4, Place::device);
  v_ = device.allocate(elements * 4, Place::device);
  gradients_ = device.allocate(elements * 4, Place::device);
  squares_ = device.allocate(block_.parameters().size() * (sizeof(double) + sizeof(std::int32_t)), Place::shared);
  if (activation_type(config) == Dtype::bf16) copies_ = device.allocate(elements * 2, Place::device);
  if (coded_.bytes() > 0) codes_ = device.allocate(coded_.bytes(), Place::device);
}

Tensor BenchWeights::masters(const std::string& first, const std::string& last) const {
  return block_.range(masters_.data, Dtype::f32, first, last);
}
Matrix BenchWeights::matrices(const std::string& first, const std::string& last) const {
  if (copies_.data == nullptr) return masters(first, last);
  return coded_.matrix(codes_.data, first, block_.range(copies_.data, Dtype::bf16, first, last));
}
Tensor BenchWeights::accumulators(const std::string& first, const std::string& last) const {
  return block_.range(gradients_.data, Dtype::f32, first, last);
}

// Neighbours that begin alike are drawn together.
void BenchWeights::draw(Ops& ops) const {
  const auto each_row = [&](const Memory& memory, std::int64_t begin, std::int64_t count, const Initialize& how) {
    for (const Tensor& t : rows_of(memory, begin, count, Dtype::f32)) {
      ops.push_back(how);
      std::get<Initialize>(ops.back()).out = t;
    }
  };
  const auto& parameters = block_.parameters();
  for (std::size_t first = 0, next = 0; first < parameters.size(); first = next) {
    const Parameter& p = parameters[first];
    while (next < parameters.size() && parameters[next].std == p.std && parameters[next].mean == p.mean) ++next;
    const std::int64_t begin = block_.offset(first),
                       end = next < parameters.size() ? block_.offset(next) : block_.elements();
    each_row(masters_, begin, end - begin, {{}, random_key(config_.train.seed, "initialize/" + p.name), p.mean, p.std});
  }
  const std::int64_t all = block_.elements();
  const std::uint64_t key = random_key(config_.train.seed, "bench/state");
  each_row(gradients_, 0, all, {{}, key, 0, 1e-3F});
  each_row(m_, 0, all, {{}, key + 1, 0, 1e-3F});
  each_row(v_, 0, all, {{}, key, 1e-6F, 0});
  if (copies_.data == nullptr) return;
  const auto from = rows_of(masters_, 0, all, Dtype::f32), to = rows_of(copies_, 0, all, Dtype::bf16);
  for (std::size_t i = 0; i < from.size(); ++i) ops.push_back(Copy{from[i], to[i]});
  encode(ops);
}

void BenchWeights::encode(Ops& ops) const {
  const std::vector<Parameter>& p = block_.parameters();
  for (const CodedBlock::Entry& entry : coded_.entries())
    ops.push_back(coded_.quantize(codes_.data, entry,
                                  block_.range(copies_.data, Dtype::bf16, p[entry.first].name, p[entry.last].name)));
}

void BenchWeights::learn(Ops& ops) const {
  const std::size_t count = block_.parameters().size();
  auto* squares = static_cast<double*>(squares_.data);
  auto* bits = reinterpret_cast<std::int32_t*>(squares + count);
  const TrainConfig& t = config_.train;
  AdamW step;
  step.lr = kLearningRate;
  step.beta1 = static_cast<float>(t.beta1);
  step.beta2 = static_cast<float>(t.beta2);
  step.eps = static_cast<float>(t.epsilon);
  Ops updates;
  for (std::size_t i = 0; i < count; ++i) {
    const Parameter& p = block_.parameters()[i];
    if (p.kind == ParameterKind::router_bias) {
      const Tensor bias = flat(masters_, block_.offset(i), p.elements(), Dtype::f32);
      ops.push_back(Add{bias, flat(m_, block_.offset(i), p.elements(), Dtype::f32), bias});
      continue;
    }
    ops.push_back(SumSquares{block_.at(gradients_.data, Dtype::f32, i), Tensor{squares + i, 1, 1, 1, Dtype::f64},
                             Tensor{bits + i, 1, 1, 1, Dtype::i32}});
    step.weight_decay = p.dimensions == 2 ? static_cast<float>(t.weight_decay) : 0;
    for (std::int64_t begin = 0; begin < p.elements(); begin += kPieceElements) {
      const std::int64_t size = std::min(kPieceElements, p.elements() - begin), at = block_.offset(i) + begin;
      step.parameter = flat(masters_, at, size, Dtype::f32);
      step.gradient = flat(gradients_, at, size, Dtype::f32);
      step.m = flat(m_, at, size, Dtype::f32);
      step.v = flat(v_, at, size, Dtype::f32);
      if (copies_.data != nullptr) step.copy = flat(copies_, at, size, Dtype::bf16);
      updates.push_back(step);
    }
  }
  // As segments that wait at the same time go: so many updates, then their gradients are cleared.
  for (std::size_t first = 0; first < updates.size(); first += ReadyHeap::kBeside) {
    const std::size_t end = std::min(updates.size(), first + ReadyHeap::kBeside);
    for (std::size_t i = first; i < end; ++i) ops.push_back(updates[i]);
    for (std::size_t i = first; i < end; ++i) ops.push_back(Fill{std::get<AdamW>(updates[i]).gradient, 0});
  }
  encode(ops);
}

}  // namespace troupe
