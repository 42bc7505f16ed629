// ParameterBlock: where one owner's tensors stand. All arenas of an owner (masters, moments, copies, each lane's
// accumulators) share one layout of element offsets, so that tensors that one product reads together are one tensor.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels/model/parameters.h"
#include "kernels/tensor.h"

namespace troupe {

// Whether a tensor stands directly behind its neighbour, without padding, since one product reads both.
bool continues_previous(const std::string& name);

class ParameterBlock {
 public:
  explicit ParameterBlock(std::vector<Parameter> parameters);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::int64_t elements() const { return elements_; }  // of an arena, padding included
  std::int64_t offset(std::size_t index) const { return offsets_[index]; }
  bool has(const std::string& name) const { return index_.contains(name); }
  std::size_t index(const std::string& name) const;  // REQUIRES: has(name)

  // Parameter `index` within an arena of this layout.
  Tensor at(void* arena, Dtype dtype, std::size_t index) const;
  // Consecutive parameters as one tensor: matrices of equal width by rows, vectors by columns. Empty if unknown.
  Tensor range(void* arena, Dtype dtype, const std::string& first, const std::string& last) const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<std::int64_t> offsets_;
  std::map<std::string, std::size_t> index_;
  std::int64_t elements_ = 0;
};

}  // namespace troupe
