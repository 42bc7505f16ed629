#include "tests/support/naive.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/random.h"
#include "tests/support/close.h"

namespace troupe::test {

namespace {

constexpr std::uint16_t kCanary = 0x7FC1;  // a NaN in every dtype: reading it spoils a result

std::uint16_t to_half(float value) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  bits += 0x7FFF + ((bits >> 16) & 1);
  return static_cast<std::uint16_t>(bits >> 16);
}

float element_f(const Tensor& x, std::int64_t row, std::int64_t col) {
  return static_cast<float>(element(x, row, col));
}

float finish_element(const Product& op, std::int64_t row, std::int64_t col, float sum) {
  if (op.bias) sum += element_f(op.bias, 0, col);
  if (op.add) sum += element_f(op.add, row, col);
  return op.c.dtype == Dtype::bf16 ? std::bit_cast<float>(std::uint32_t{to_half(sum)} << 16) : sum;
}

}  // namespace

Owned::Owned(std::int64_t rows, std::int64_t cols, Dtype dtype, std::int64_t slack) {
  const auto size = static_cast<std::size_t>(rows * (cols + slack)) * bytes_of(dtype);
  memory_.resize(size / 8 + 1);
  auto* words = reinterpret_cast<std::uint16_t*>(memory_.data());
  std::fill(words, words + memory_.size() * 4, kCanary);
  tensor_ = {memory_.data(), rows, cols, cols + slack, dtype};
}

double element(const Tensor& x, std::int64_t row, std::int64_t col) {
  switch (x.dtype) {
    case Dtype::f32:
      return static_cast<double>(x.row<const float>(row)[col]);
    case Dtype::bf16:
      return static_cast<double>(std::bit_cast<float>(std::uint32_t{x.row<const std::uint16_t>(row)[col]} << 16));
    case Dtype::i32:
      return x.row<const std::int32_t>(row)[col];
    case Dtype::f64:
      return x.row<const double>(row)[col];
    case Dtype::e4m3:
      return static_cast<double>(from_e4m3(x.row<const std::uint8_t>(row)[col]));
  }
  return 0;
}

double Owned::at(std::int64_t row, std::int64_t col) const { return element(tensor_, row, col); }

void Owned::set(std::int64_t row, std::int64_t col, double value) {
  switch (tensor_.dtype) {
    case Dtype::f32:
      tensor_.row<float>(row)[col] = static_cast<float>(value);
      break;
    case Dtype::bf16:
      tensor_.row<std::uint16_t>(row)[col] = to_half(static_cast<float>(value));
      break;
    case Dtype::i32:
      tensor_.row<std::int32_t>(row)[col] = static_cast<std::int32_t>(value);
      break;
    case Dtype::f64:
      tensor_.row<double>(row)[col] = value;
      break;
    case Dtype::e4m3:
      tensor_.row<std::uint8_t>(row)[col] = round_to_e4m3(static_cast<float>(value));
      break;
  }
}

bool Owned::canaries_alive() const {
  const std::size_t half_words = bytes_of(tensor_.dtype) / 2;
  for (std::int64_t r = 0; r < tensor_.rows; ++r) {
    const auto* slack = static_cast<const std::uint16_t*>(tensor_.address(r, tensor_.cols));
    for (std::size_t i = 0; i < static_cast<std::size_t>(tensor_.stride - tensor_.cols) * half_words; ++i)
      if (slack[i] != kCanary) return false;
  }
  return true;
}

Owned normal(std::int64_t rows, std::int64_t cols, std::uint64_t seed, Dtype dtype, std::int64_t slack) {
  Owned x(rows, cols, dtype, slack);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j)
      x.set(i, j, random_normal(seed, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
  return x;
}

Owned integers(std::int64_t rows, std::int64_t cols, const std::vector<std::int32_t>& values) {
  Owned x(rows, cols, Dtype::i32);
  std::memcpy(x.tensor().data, values.data(), values.size() * sizeof(std::int32_t));
  return x;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.rows != b.rows || a.cols != b.cols || a.dtype != b.dtype) return false;
  for (std::int64_t r = 0; r < a.rows; ++r)
    if (std::memcmp(a.address(r, 0), b.address(r, 0), static_cast<std::size_t>(a.cols) * bytes_of(a.dtype)) != 0)
      return false;
  return true;
}

Grid::Grid(const Tensor& x) : Grid(x.rows, x.cols) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j) (*this)(i, j) = element(x, i, j);
}

double distance(const Tensor& actual, const Grid& expected) {
  const double far = std::numeric_limits<double>::infinity();
  if (actual.rows != expected.rows || actual.cols != expected.cols) return far;
  double worst = 0;
  for (std::int64_t i = 0; i < expected.rows; ++i)
    for (std::int64_t j = 0; j < expected.cols; ++j) {
      const double apart = std::abs(element(actual, i, j) - expected(i, j));
      if (!(apart <= worst)) worst = apart == apart ? apart : far;
    }
  return worst;
}

double dot(const Grid& a, const Grid& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

Grid gradient(const std::function<double(const Grid&)>& loss, const Grid& x) {
  Grid slope(x.rows, x.cols), moved = x;
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    moved.values[i] = x.values[i] + kDifferenceStep;
    const double up = loss(moved);
    moved.values[i] = x.values[i] - kDifferenceStep;
    slope.values[i] = (up - loss(moved)) / (2 * kDifferenceStep);
    moved.values[i] = x.values[i];
  }
  return slope;
}

NaiveTiles::NaiveTiles(const Tensor& x, const Scaling& scaling, bool down)
    : tall(down ? 128 : scaling.width),
      wide(down ? scaling.width : 128),
      scales((x.rows + tall - 1) / tall, (x.cols + wide - 1) / wide),
      codes(x.rows, x.cols) {
  for (std::int64_t i = 0; i < x.rows; ++i)
    for (std::int64_t j = 0; j < x.cols; ++j) {
      double& largest = scales(i / tall, j / wide);
      largest = std::max({largest, std::abs(element(x, i, j)), static_cast<double>(scaling.floor)});
    }
  for (double& scale : scales.values) scale = std::max(static_cast<float>(scale) / 448.0F, std::ldexp(1.0F, -126));
  for (std::int64_t i = 0; i < x.rows; ++i)
    for (std::int64_t j = 0; j < x.cols; ++j) codes(i, j) = round_to_e4m3(element_f(x, i, j) / scale(i, j));
}

Grid scaled_product(const Product& op, const Grid& start) {
  const NaiveTiles a(op.a, op.a_scaling, op.transpose_a), b(op.b, op.b_scaling, !op.transpose_b);
  const std::int64_t depth = op.transpose_a ? op.a.rows : op.a.cols;
  Grid out = start;
  for (std::int64_t i = 0; i < op.c.rows; ++i)
    for (std::int64_t j = 0; j < op.c.cols; ++j) {
      auto sum = static_cast<float>(start(i, j));
      for (std::int64_t tile = 0; tile < depth; tile += 128) {
        float chain = 0;
        for (std::int64_t k = tile; k < std::min(tile + 128, depth); ++k)
          chain = std::fma(op.transpose_a ? a.value(k, i) : a.value(i, k),
                           op.transpose_b ? b.value(j, k) : b.value(k, j), chain);
        const float scale_b = op.transpose_b ? b.scale(j, tile) : b.scale(tile, j);
        sum = std::fma(op.transpose_a ? a.scale(tile, i) : a.scale(i, tile), scale_b * chain, sum);
      }
      out(i, j) = static_cast<double>(finish_element(op, i, j, sum));
    }
  return out;
}

double worst_error(const Product& op, const Grid& start) {
  double worst = 0;
  const std::int64_t depth = op.transpose_a ? op.a.rows : op.a.cols;
  for (std::int64_t i = 0; i < op.c.rows; ++i)
    for (std::int64_t j = 0; j < op.c.cols; ++j) {
      double sum = op.accumulate ? start(i, j) : 0, size = std::abs(sum);
      const auto add = [&](double term) { sum += term, size += std::abs(term); };
      for (std::int64_t k = 0; k < depth; ++k)
        add((op.transpose_a ? element(op.a, k, i) : element(op.a, i, k)) *
            (op.transpose_b ? element(op.b, j, k) : element(op.b, k, j)));
      if (op.bias) add(element(op.bias, 0, j));
      if (op.add) add(element(op.add, i, j));
      const auto terms = static_cast<double>(depth);
      const double may = op.c.dtype == Dtype::f32 ? sum_tolerance(terms, size) : half_tolerance(terms, size, sum);
      const double error = std::abs(element(op.c, i, j) - sum) / may;
      if (!(error <= worst)) worst = std::isnan(error) ? 1e30 : error;
    }
  return worst;
}

float product_element(const Product& op, std::int64_t row, std::int64_t col, float start) {
  const std::int64_t depth = op.transpose_a ? op.a.rows : op.a.cols;
  float sum = start;
  for (std::int64_t k = 0; k < depth; ++k) {
    const float a = op.transpose_a ? element_f(op.a, k, row) : element_f(op.a, row, k);
    const float b = op.transpose_b ? element_f(op.b, col, k) : element_f(op.b, k, col);
    sum = std::fma(a, b, sum);
  }
  return finish_element(op, row, col, sum);
}

Grid norm(const Grid& x, const Grid& weight, double eps) {
  Grid y(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (std::int64_t d = 0; d < x.cols; ++d) squares += x(t, d) * x(t, d);
    const double r = 1 / std::sqrt(squares / static_cast<double>(x.cols) + eps);
    for (std::int64_t d = 0; d < x.cols; ++d) y(t, d) = weight(0, d) * x(t, d) * r;
  }
  return y;
}

Grid swiglu(const Grid& gate_up) {
  Grid h(gate_up.rows, gate_up.cols / 2);
  for (std::int64_t t = 0; t < h.rows; ++t)
    for (std::int64_t i = 0; i < h.cols; ++i) {
      const double gate = gate_up(t, i);
      h(t, i) = gate / (1 + std::exp(-gate)) * gate_up(t, h.cols + i);
    }
  return h;
}

Grid softmax(const Grid& logits) {
  Grid p(logits.rows, logits.cols);
  for (std::int64_t t = 0; t < p.rows; ++t) {
    double sum = 0;
    for (std::int64_t v = 0; v < p.cols; ++v) sum += std::exp(logits(t, v));
    for (std::int64_t v = 0; v < p.cols; ++v) p(t, v) = std::exp(logits(t, v)) / sum;
  }
  return p;
}

double cross_entropy(const Grid& logits, const std::vector<std::int32_t>& targets) {
  const Grid p = softmax(logits);
  double loss = 0;
  for (std::int64_t t = 0; t < p.rows; ++t)
    if (const std::int32_t target = targets[static_cast<std::size_t>(t)]; target >= 0) loss -= std::log(p(t, target));
  return loss;
}

Grid attention(const Attention& op, const Grid& q, const Grid& k, const Grid& k_shared, const Grid& v) {
  const int dim = op.own_dim + op.shared_dim;
  Grid out(q.rows, op.heads * op.v_dim);
  for (std::int64_t s = 0; s < op.spans.rows; ++s) {
    const std::int32_t* span = op.spans.row<const std::int32_t>(s);
    for (int h = 0; h < op.heads; ++h)
      for (int i = 0; i < span[1]; ++i) {
        const int g = h / (op.heads / op.kv_heads), row = span[0] + i, seen = span[3] - span[1] + i + 1;
        Grid scores(1, seen);
        for (int j = 0; j < seen; ++j) {
          double sum = 0;
          for (int d = 0; d < dim; ++d)
            sum += q(row, h * dim + d) *
                   (d < op.own_dim ? k(span[2] + j, g * op.k_head_stride + d) : k_shared(span[2] + j, d - op.own_dim));
          scores(0, j) = sum * op.scale;
        }
        const Grid p = softmax(scores);
        for (int d = 0; d < op.v_dim; ++d)
          for (int j = 0; j < seen; ++j)
            out(row, h * op.v_dim + d) += p(0, j) * v(span[2] + j, g * op.v_head_stride + d);
      }
  }
  return out;
}

Grid gate_scores(const Grid& logits) {
  Grid scores = logits;
  for (double& s : scores.values) s = 1 / (1 + std::exp(-s));
  return scores;
}

Grid gate_weights(const Grid& scores, const Tensor& indices, bool normalize, double scaling) {
  Grid weights(indices.rows, indices.cols);
  for (std::int64_t t = 0; t < indices.rows; ++t) {
    const std::int32_t* chosen = indices.row<const std::int32_t>(t);
    double sum = 1e-20;
    for (std::int64_t k = 0; k < indices.cols; ++k) sum += scores(t, chosen[k]);
    for (std::int64_t k = 0; k < indices.cols; ++k)
      weights(t, k) = scores(t, chosen[k]) / (normalize ? sum : 1) * scaling;
  }
  return weights;
}

}  // namespace troupe::test
