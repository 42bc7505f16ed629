#include "kernels/profile.h"

#include <array>
#include <utility>
#include <variant>

namespace troupe {

namespace {

constexpr std::array kNames = {"Product",
                               "GroupedProduct",
                               "Norm",
                               "NormBackward",
                               "Rope",
                               "Attention",
                               "AttentionBackward",
                               "SwiGlu",
                               "SwiGluBackward",
                               "Router",
                               "RouterBackward",
                               "Gather",
                               "Scatter",
                               "Combine",
                               "ScaleRows",
                               "Embedding",
                               "EmbeddingGradient",
                               "CrossEntropy",
                               "Copy",
                               "Add",
                               "Fill",
                               "SumRows",
                               "SumSquares",
                               "AdamW",
                               "Initialize",
                               "Sample",
                               "PolicyLoss",
                               "Digest",
                               "Quantize"};
static_assert(kNames.size() == std::variant_size_v<Op>);

// What an op writes, or works on.
template <typename One>
const Tensor& written(const One& op) {
  if constexpr (requires { op.out; } && !std::is_same_v<One, Digest>)
    return op.out;
  else if constexpr (requires { op.c; })
    return op.c;
  else if constexpr (requires { op.x; })
    return op.x;
  else if constexpr (requires { op.dout; })
    return op.dout;
  else if constexpr (requires { op.h; })
    return op.h;
  else if constexpr (requires { op.dh; })
    return op.dh;
  else if constexpr (requires { op.dlogits; })
    return op.dlogits;
  else if constexpr (requires { op.dtable; })
    return op.dtable;
  else if constexpr (requires { op.parameter; })
    return op.parameter;
  else
    return op.logits;
}

const Tensor& written(const SumSquares& op) { return op.x; }

std::int64_t depth_of(const Op& op) {
  if (const auto* grouped = std::get_if<GroupedProduct>(&op)) return grouped->a.cols;
  const auto* product = std::get_if<Product>(&op);
  if (product == nullptr) return 0;
  return product->transpose_a ? product->a.rows : product->a.cols;
}

}  // namespace

void OpProfile::add(SegmentClass phase, const Op& op, std::int64_t ns) {
  const Tensor& out = std::visit([](const auto& one) -> const Tensor& { return written(one); }, op);
  // A weight gradient sums over the rows: its own shape stays, its depth varies.
  const bool sums_rows = phase == SegmentClass::weight_gradient;
  OpTime& time = times_[{op.index(), phase, sums_rows ? out.rows : depth_of(op), out.cols}];
  ++time.count;
  time.rows += sums_rows ? depth_of(op) : out.rows;
  time.ns += ns;
  time.cost += cost(op);
}

void OpProfile::add(const OpProfile& more) {
  for (const auto& [key, time] : more.times_) {
    OpTime& mine = times_[key];
    mine.count += time.count;
    mine.rows += time.rows;
    mine.ns += time.ns;
    mine.cost += time.cost;
  }
}

const char* op_name(std::size_t kind) { return kNames.at(kind); }

const char* to_string(SegmentClass phase) {
  switch (phase) {
    case SegmentClass::apply:
      return "apply";
    case SegmentClass::backward:
      return "backward";
    case SegmentClass::forward:
      return "forward";
    case SegmentClass::weight_gradient:
      return "weights";
    case SegmentClass::evaluate:
      return "evaluate";
  }
  return "?";
}

}  // namespace troupe
