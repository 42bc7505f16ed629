// A weight as products read it: its values, and its codes where products in FP8 read those.
#pragma once

#include <concepts>

#include "kernels/tensor.h"

namespace troupe {

// Codes of a weight, one way round, and the scales of their blocks (Quantize in kernels/op.h).
struct Coded {
  Tensor codes, scales;
  explicit operator bool() const { return bool(codes); }
};

struct Matrix : Tensor {
  Matrix() = default;
  template <std::convertible_to<Tensor> Values>
  Matrix(const Values& values, const Coded& as_it_stands = {}, const Coded& turned_round = {})
      : Tensor(values), coded(as_it_stands), turned(turned_round) {}
  Coded coded, turned;  // empty: products quantize the values
};

}  // namespace troupe
