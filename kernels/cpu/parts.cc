#include "kernels/cpu/parts.h"

#include <algorithm>
#include <utility>

#include "kernels/grouped_product.h"
#include "kernels/tiles.h"

namespace troupe::cpu {

namespace {

constexpr std::int64_t kElementsMin = 32 * 1024;  // that a part reads: some microseconds of memory
constexpr std::int64_t kColumns = 128;            // whole panels of a product's widest form, and whole weight blocks

// Calls part(begin, count) for at most `wanted` equal runs of 0..total, each a multiple of `grain` but the last.
template <typename Part>
void runs(std::int64_t total, std::int64_t grain, std::int64_t wanted, Part part) {
  const std::int64_t grains = (total + grain - 1) / grain, step = (grains + wanted - 1) / wanted * grain;
  for (std::int64_t begin = 0; begin < total; begin += step) part(begin, std::min(step, total - begin));
}

std::int64_t work_of(const Product& op) { return std::max(op.b.elements(), op.c.rows * op.b.elements() / 16); }
std::int64_t parts_of(std::int64_t cols, std::int64_t work, std::int64_t count) {
  return std::min({count, work / kElementsMin, (cols + kColumns - 1) / kColumns});
}

// Of the weight blocks that these columns of c are made of.
Tensor scales_of(const Tensor& scales, std::int64_t begin, std::int64_t columns) {
  static_assert(kColumns == kWeightBlocks.width);
  return scales ? scales.columns(begin / kColumns, tiles_count(columns, kColumns)) : scales;
}

void cut_product(const Product& op, std::int64_t count, std::vector<Op>& parts) {
  const std::int64_t wanted = parts_of(op.c.cols, work_of(op), count);
  if (wanted < 2) return;
  runs(op.c.cols, kColumns, wanted, [&](std::int64_t begin, std::int64_t columns) {
    Product part = op;
    part.b = op.transpose_b ? op.b.row_range(begin, columns) : op.b.columns(begin, columns);
    part.b_scales = scales_of(op.b_scales, begin, columns);
    if (op.b_turned) part.b_turned = op.b_turned.row_range(begin, columns);
    part.c = op.c.columns(begin, columns);
    if (op.bias) part.bias = op.bias.columns(begin, columns);
    if (op.add) part.add = op.add.columns(begin, columns);
    parts.emplace_back(part);
  });
}

// Columns of every run's matrix.
void cut_grouped(const GroupedProduct& op, std::int64_t count, std::vector<Op>& parts) {
  std::int64_t work = 0;
  each_product(op, [&](const Product& one) { work += work_of(one); });
  const std::int64_t wanted = parts_of(op.c.cols, work, count);
  if (wanted < 2) return;
  runs(op.c.cols, kColumns, wanted, [&](std::int64_t begin, std::int64_t columns) {
    GroupedProduct part = op;
    for (Tensor& b : part.b) b = op.transpose_b ? b.row_range(begin, columns) : b.columns(begin, columns);
    for (Tensor& scales : part.b_scales) scales = scales_of(scales, begin, columns);
    for (Tensor& turned : part.b_turned) turned = turned.row_range(begin, columns);
    part.c = op.c.columns(begin, columns);
    parts.emplace_back(std::move(part));
  });
}

void cut_spans(const Attention& op, std::int64_t count, std::vector<Op>& parts) {
  runs(op.spans.rows, 1, count, [&](std::int64_t begin, std::int64_t spans) {
    Attention part = op;
    part.spans = op.spans.row_range(begin, spans);
    parts.emplace_back(part);
  });
}

// Key heads, each with the query heads that read it.
void cut_heads(const Attention& op, std::int64_t count, std::vector<Op>& parts) {
  const std::int64_t group = op.heads / op.kv_heads, dim = op.own_dim + op.shared_dim;
  runs(op.kv_heads, 1, count, [&](std::int64_t begin, std::int64_t kv_heads) {
    Attention part = op;
    const std::int64_t first = begin * group, heads = kv_heads * group;
    part.kv_heads = static_cast<int>(kv_heads);
    part.heads = static_cast<int>(heads);
    part.q = op.q.columns(first * dim, heads * dim);
    part.out = op.out.columns(first * op.v_dim, heads * op.v_dim);
    part.row_max = op.row_max.columns(first, heads);
    part.row_scale = op.row_scale.columns(first, heads);
    part.k = op.k.columns(begin * op.k_head_stride, (kv_heads - 1) * op.k_head_stride + op.own_dim);
    part.v = op.v.columns(begin * op.v_head_stride, (kv_heads - 1) * op.v_head_stride + op.v_dim);
    parts.emplace_back(part);
  });
}

void cut_attention(const Attention& op, std::int64_t count, std::vector<Op>& parts) {
  std::int64_t keys = 0;
  for (std::int64_t s = 0; s < op.spans.rows; ++s) keys += op.spans.row<const std::int32_t>(s)[3];
  const std::int64_t read = keys * op.kv_heads * (op.own_dim + op.v_dim);
  const std::int64_t wanted = std::min(count, read / kElementsMin);
  if (wanted < 2) return;
  if (op.spans.rows >= wanted)
    cut_spans(op, wanted, parts);
  else if (op.kv_heads > 1)
    cut_heads(op, wanted, parts);
}

}  // namespace

void cut(const Op& op, std::int64_t count, std::vector<Op>& parts) {
  parts.clear();
  if (const auto* product = std::get_if<Product>(&op)) cut_product(*product, count, parts);
  if (const auto* grouped = std::get_if<GroupedProduct>(&op)) cut_grouped(*grouped, count, parts);
  if (const auto* attention = std::get_if<Attention>(&op)) cut_attention(*attention, count, parts);
}

}  // namespace troupe::cpu
