// CodedBlock: where the codes of an owner's weights stand, both ways round. Those have some that products in FP8 read
// (linear.h): the matrices of MLPs and experts, and of attention where it is asked for. What one product reads together
// has codes together, since blocks are counted from its first row.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels/model/matrix.h"
#include "kernels/model/parameter_block.h"
#include "kernels/op.h"

namespace troupe {

class CodedBlock {
 public:
  struct Entry {
    std::size_t first = 0, last = 0;  // parameters of the block
    std::int64_t rows = 0, cols = 0;  // of all of them
    std::size_t begin = 0;            // of its codes and scales, within the arena
  };
  CodedBlock() = default;  // of nothing
  CodedBlock(const ParameterBlock& block, bool mlp, bool attention);

  const std::vector<Entry>& entries() const { return entries_; }
  std::size_t bytes() const { return bytes_; }  // of an arena; zero where nothing stands
  // What makes an entry's codes of its values; or only says where they stand.
  Quantize quantize(void* arena, const Entry& entry, const Tensor& values) const;
  // The values of the parameters from `first` on, with their codes if they have any.
  Matrix matrix(void* arena, const std::string& first, const Tensor& values) const;

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t> index_;  // by the first parameter's name
  std::size_t bytes_ = 0;
};

}  // namespace troupe
