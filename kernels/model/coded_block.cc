#include "kernels/model/coded_block.h"

#include "kernels/tiles.h"

namespace troupe {

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::int64_t bytes) {
  return (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
}
std::int64_t row_bytes(std::int64_t cols) { return (cols + 15) / 16 * 16; }
std::int64_t blocks(std::int64_t elements) { return tiles_count(elements, kScaledDepth); }

bool has_codes(const Parameter& p, bool mlp, bool attention) {
  if (p.dimensions != 2 || p.name.find("_proj") == std::string::npos) return false;
  return (mlp && p.name.find(".mlp.") != std::string::npos) ||
         (attention && p.name.find(".self_attn.") != std::string::npos);
}

// Of an entry's four tensors, one behind the other.
struct Places {
  std::size_t scales, turned, turned_scales, end;
  Places(std::int64_t rows, std::int64_t cols)
      : scales(aligned(rows * row_bytes(cols))),
        turned(scales + aligned(blocks(rows) * blocks(cols) * 4)),
        turned_scales(turned + aligned(cols * row_bytes(rows))),
        end(turned_scales + aligned(blocks(rows) * blocks(cols) * 4)) {}
};

}  // namespace

CodedBlock::CodedBlock(const ParameterBlock& block, bool mlp, bool attention) {
  const std::vector<Parameter>& all = block.parameters();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!has_codes(all[i], mlp, attention)) continue;
    if (!entries_.empty() && entries_.back().last + 1 == i && continues_previous(all[i].name)) {
      entries_.back().last = i;
      entries_.back().rows += all[i].rows;
      continue;
    }
    index_[all[i].name] = entries_.size();
    entries_.push_back({.first = i, .last = i, .rows = all[i].rows, .cols = all[i].cols});
  }
  for (Entry& entry : entries_) {
    entry.begin = bytes_;
    bytes_ += Places(entry.rows, entry.cols).end;
  }
}

Quantize CodedBlock::quantize(void* arena, const Entry& entry, const Tensor& values) const {
  const Places at(entry.rows, entry.cols);
  char* const data = static_cast<char*>(arena) + entry.begin;
  const std::int64_t o = entry.rows, i = entry.cols;
  return {.x = values,
          .codes = {data, o, i, row_bytes(i), Dtype::e4m3},
          .scales = {data + at.scales, blocks(i), blocks(o), blocks(o), Dtype::f32},
          .turned = {data + at.turned, i, o, row_bytes(o), Dtype::e4m3},
          .turned_scales = {data + at.turned_scales, blocks(o), blocks(i), blocks(i), Dtype::f32}};
}

Matrix CodedBlock::matrix(void* arena, const std::string& first, const Tensor& values) const {
  const auto found = index_.find(first);
  if (found == index_.end()) return values;
  const Quantize one = quantize(arena, entries_[found->second], values);
  return {values, {one.codes, one.scales}, {one.turned, one.turned_scales}};
}

}  // namespace troupe
