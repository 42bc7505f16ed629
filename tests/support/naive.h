// The ops as plain loops in double, and tensors that own their memory: what the kernels are judged against.
// Nothing here is shared with the kernels but the op values themselves.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/op.h"

namespace troupe::test {

// A tensor with memory of its own. `slack` columns beyond cols make its rows strided; they hold a canary.
class Owned {
 public:
  Owned(std::int64_t rows, std::int64_t cols, Dtype dtype = Dtype::f32, std::int64_t slack = 0);
  Owned(Owned&&) = default;
  Owned& operator=(Owned&&) = default;
  operator const Tensor&() const { return tensor_; }
  const Tensor& tensor() const { return tensor_; }
  double at(std::int64_t row, std::int64_t col) const;
  void set(std::int64_t row, std::int64_t col, double value);
  bool canaries_alive() const;

 private:
  std::vector<std::uint64_t> memory_;
  Tensor tensor_;
};

double element(const Tensor& x, std::int64_t row, std::int64_t col);
Owned normal(std::int64_t rows, std::int64_t cols, std::uint64_t seed, Dtype dtype = Dtype::f32,
             std::int64_t slack = 0);
Owned integers(std::int64_t rows, std::int64_t cols, const std::vector<std::int32_t>& values);
bool same_bits(const Tensor& a, const Tensor& b);

// A matrix of doubles.
struct Grid {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;
  Grid() = default;
  Grid(std::int64_t rows_count, std::int64_t cols_count)
      : rows(rows_count), cols(cols_count), values(static_cast<std::size_t>(rows_count * cols_count)) {}
  explicit Grid(const Tensor& x);
  double& operator()(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * cols + j)]; }
  double operator()(std::int64_t i, std::int64_t j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
};

// The largest distance between a tensor and a grid; infinity when a value isn't a number or the shapes differ.
double distance(const Tensor& actual, const Grid& expected);
double dot(const Grid& a, const Grid& b);

// d loss / d x by central differences.
Grid gradient(const std::function<double(const Grid&)>& loss, const Grid& x);

// The product's law in float: the chain of fused multiply-adds in increasing k, then bias, then add.
float product_element(const Product& op, std::int64_t row, std::int64_t col, float start);

// Of a product's elements the worst distance from a sum in double that begins at `start` where it accumulates, as a share
// of what rounding may do: of the sums, and once of a bfloat16 result.
double worst_error(const Product& op, const Grid& start);

// A tensor by the law of Scaling: its tiles' scales, and its elements' codes. x: finite.
struct NaiveTiles {
  NaiveTiles(const Tensor& x, const Scaling& scaling, bool down);
  float scale(std::int64_t i, std::int64_t j) const { return static_cast<float>(scales(i / tall, j / wide)); }
  std::uint8_t code(std::int64_t i, std::int64_t j) const { return static_cast<std::uint8_t>(codes(i, j)); }
  float value(std::int64_t i, std::int64_t j) const { return from_e4m3(code(i, j)); }
  std::int64_t tall, wide;  // of one tile
  Grid scales, codes;
};
// The law of a scaled product, from `start`: a chain for each 128 of k, then bias, then add.
Grid scaled_product(const Product& op, const Grid& start);

Grid norm(const Grid& x, const Grid& weight, double eps);
Grid swiglu(const Grid& gate_up);
Grid softmax(const Grid& logits);
double cross_entropy(const Grid& logits, const std::vector<std::int32_t>& targets);
// q, k, k_shared, v as op's tensors would hold them; spans, heads, dims and strides from op.
Grid attention(const Attention& op, const Grid& q, const Grid& k, const Grid& k_shared, const Grid& v);
// Scores of a gate from its logits, and the weights of given choices.
Grid gate_scores(const Grid& logits);
Grid gate_weights(const Grid& scores, const Tensor& indices, bool normalize, double scaling);

}  // namespace troupe::test
