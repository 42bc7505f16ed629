// Copy (converts), Add, Fill, SumRows: out[0,d] (+)= sum_t x[t,d] with rows in order in f32.
// SumSquares: f64, each 4,096-element block (row-major) left to right, then the blocks in order; and the bits' sum.
// Add and Copy assign; SumRows owns its accumulation.
#include <bit>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

constexpr std::int64_t kSquaresBlock = 4096;
constexpr int kSquaresTogether = 8;  // blocks side by side: one alone would wait for its own additions

// The elements begin .. begin + count of x in row-major order, as float32.
const float* flat(const Tensor& x, std::int64_t begin, std::int64_t count, float* buffer) {
  if (x.dtype == Dtype::f32 && x.contiguous()) return static_cast<const float*>(x.data) + begin;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t row = (begin + done) / x.cols, col = (begin + done) % x.cols;
    const Tensor part = x.columns(col, std::min(x.cols - col, count - done));
    const float* from = read_row(part, row, buffer + done);
    if (from != buffer + done) std::copy_n(from, part.cols, buffer + done);
    done += part.cols;
  }
  return buffer;
}

std::uint32_t sum_of_bits(const float* x, std::int64_t count) {
  std::uint32_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += std::bit_cast<std::uint32_t>(x[i]);
  return sum;
}

}  // namespace

void run(const Copy& op, Scratch&) {
  for (std::int64_t t = 0; t < op.out.rows; ++t) convert_row(op.source, t, op.out, t);
}

void run(const Add& op, Scratch& scratch) {
  float* buffer[3];
  for (float*& b : buffer) b = scratch.take<float>(op.out.cols);
  for (std::int64_t t = 0; t < op.out.rows; ++t) {
    const float *a = read_row(op.a, t, buffer[0]), *b = read_row(op.b, t, buffer[1]);
    float* out = open_row(op.out, t, buffer[2]);
    map(
        op.out.cols, out, [](Vec x, Vec y) { return x + y; }, a, b);
    close_row(op.out, t, out);
  }
}

void run(const Fill& op, Scratch&) {
  const Tensor& out = op.out;
  for (std::int64_t t = 0; t < out.rows; ++t) switch (out.dtype) {
      case Dtype::f32:
        std::fill_n(out.row<float>(t), out.cols, op.value);
        break;
      case Dtype::bf16:
        std::fill_n(out.row<std::uint16_t>(t), out.cols, narrow(op.value));
        break;
      case Dtype::i32:
        std::fill_n(out.row<std::int32_t>(t), out.cols, static_cast<std::int32_t>(op.value));
        break;
      case Dtype::f64:
        std::fill_n(out.row<double>(t), out.cols, static_cast<double>(op.value));
        break;
      case Dtype::e4m3:
        std::fill_n(out.row<std::uint8_t>(t), out.cols, round_to_e4m3(op.value));
        break;
    }
}

void run(const SumRows& op, Scratch& scratch) {
  float *buffer = scratch.take<float>(op.x.cols), *out = op.out.row<float>(0);
  if (!op.accumulate) std::fill_n(out, op.out.cols, 0.0F);
  for (std::int64_t t = 0; t < op.x.rows; ++t) {
    const float* x = read_row(op.x, t, buffer);
    map(
        op.x.cols, out, [](Vec sum, Vec row) { return sum + row; }, out, x);
  }
}

void run(const SumSquares& op, Scratch& scratch) {
  const std::int64_t count = op.x.elements();
  float* buffers = scratch.take<float>(kSquaresTogether * kSquaresBlock);
  double total = 0;
  std::uint32_t bits = 0;
  for (std::int64_t begin = 0; begin < count;) {
    const float* block[kSquaresTogether];
    std::int64_t size[kSquaresTogether] = {};
    double sum[kSquaresTogether] = {};
    for (int b = 0; b < kSquaresTogether; ++b) {
      size[b] = std::min(kSquaresBlock, count - begin);
      block[b] = size[b] > 0 ? flat(op.x, begin, size[b], buffers + b * kSquaresBlock) : buffers;
      begin += size[b];
    }
    const std::int64_t common = size[kSquaresTogether - 1];
    for (std::int64_t i = 0; i < common; ++i)
      for (int b = 0; b < kSquaresTogether; ++b) {
        const double x = block[b][i];
        sum[b] += x * x;
      }
    for (int b = 0; b < kSquaresTogether; ++b) {
      for (std::int64_t i = common; i < size[b]; ++i) sum[b] += static_cast<double>(block[b][i]) * block[b][i];
      total += sum[b];
      bits += sum_of_bits(block[b], size[b]);
    }
  }
  *op.out.row<double>(0) = total;
  *op.bits.row<std::int32_t>(0) = std::bit_cast<std::int32_t>(bits);
}

}  // namespace troupe::cpu
