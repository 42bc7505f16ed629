#include "kernels/model/parameter_block.h"

#include <array>

namespace troupe {

bool continues_previous(const std::string& name) {
  static constexpr std::array<const char*, 6> kFollowers = {
      "kv_a_proj_with_mqa.weight", "k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias", "up_proj.weight"};
  for (const char* follower : kFollowers)
    if (name.ends_with(follower)) return true;
  return false;
}

ParameterBlock::ParameterBlock(std::vector<Parameter> parameters) : parameters_(std::move(parameters)) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!continues_previous(parameters_[i].name)) elements_ = (elements_ + 15) / 16 * 16;
    offsets_.push_back(elements_);
    index_[parameters_[i].name] = i;
    elements_ += parameters_[i].elements();
  }
  elements_ = (elements_ + 15) / 16 * 16;
}

std::size_t ParameterBlock::index(const std::string& name) const {
  const auto found = index_.find(name);
  CHECK(found != index_.end(), "no parameter {} here", name);
  return found->second;
}

Tensor ParameterBlock::at(void* arena, Dtype dtype, std::size_t index) const {
  const Parameter& p = parameters_[index];
  char* data = static_cast<char*>(arena) + static_cast<std::size_t>(offsets_[index]) * bytes_of(dtype);
  return {data, p.rows, p.cols, p.cols, dtype};
}

Tensor ParameterBlock::range(void* arena, Dtype dtype, const std::string& first, const std::string& last) const {
  if (!has(first) || !has(last)) return {};
  const std::size_t begin = index(first), end = index(last);
  CHECK(begin <= end, "{} stands after {}", first, last);
  Tensor all = at(arena, dtype, begin);
  for (std::size_t i = begin + 1; i <= end; ++i) {
    const Parameter& p = parameters_[i];
    CHECK(offsets_[i] == offsets_[i - 1] + parameters_[i - 1].elements(), "{} doesn't follow {}", p.name,
          parameters_[i - 1].name);
    if (p.dimensions == 1) {
      all.cols += p.cols;
      all.stride = all.cols;
    } else {
      CHECK(p.cols == all.cols, "{} is {} wide, {} is {}", p.name, p.cols, first, all.cols);
      all.rows += p.rows;
    }
  }
  return all;
}

}  // namespace troupe
