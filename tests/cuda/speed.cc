// How quick products are beside others, by the GPU's own clock: gpu_test "[speed]".
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstdio>

#include "kernels/cuda/arena.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/product_scaled.h"
#include "kernels/cuda/product_wgmma.h"
#include "kernels/model/linear.h"

#include "tests/support/catch.h"

using namespace troupe;
using cuda::must;

namespace {

class Bench {
 public:
  Bench() {
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    must(cudaEventCreateWithFlags(&begin_, cudaEventDefault), "making an event");
    must(cudaEventCreateWithFlags(&end_, cudaEventDefault), "making an event");
  }
  Tensor drawn(cuda::Queue& memory, std::int64_t rows, std::int64_t cols, Dtype dtype) const {
    const Tensor x{memory.take_bytes(static_cast<std::size_t>(rows * cols) * bytes_of(dtype)), rows, cols, cols, dtype};
    cuda::run(Op(Initialize{.out = x, .key = static_cast<std::uint64_t>(rows), .std = 1}), memory);
    return x;
  }
  cudaStream_t stream() const { return stream_; }

  template <typename Work>
  double us_of(Work work) const {
    constexpr int kTimes = 10;
    for (int i = 0; i < 3; ++i) work();
    must(cudaEventRecord(begin_, stream_), "recording an event");
    for (int i = 0; i < kTimes; ++i) work();
    must(cudaEventRecord(end_, stream_), "recording an event");
    must(cudaEventSynchronize(end_), "waiting");
    float ms = 0;
    must(cudaEventElapsedTime(&ms, begin_, end_), "an op's time");
    return static_cast<double>(ms) * 1e3 / kTimes;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// `scaled` and the same product in bfloat16. What each product quantizes counts with it last: of a weight, nothing.
void compare(const Bench& bench, const char* form, const Product& scaled) {
  cuda::Arena room(bench.stream(), true);
  Product halves = scaled;
  halves.a_scaling = halves.b_scaling = {};
  const double half_us = bench.us_of([&] { cuda::run_wgmma(halves, room); });
  const auto codes_of = [&](const Tensor& x, const Scaling& scaling, bool down) {
    return cuda::quantize({x}, scaling, down, room).front();
  };
  const cuda::Codes a = codes_of(scaled.a, scaled.a_scaling, scaled.transpose_a);
  const cuda::Codes b = codes_of(scaled.b, scaled.b_scaling, !scaled.transpose_b);
  const double us = bench.us_of([&] { cuda::multiply_codes(scaled, a, b, room); });
  cuda::Arena other(bench.stream());
  const double a_us = bench.us_of([&] {
    other.reset();
    cuda::quantize({scaled.a}, scaled.a_scaling, scaled.transpose_a, other);
  });
  const double b_us = bench.us_of([&] {
    other.reset();
    cuda::quantize({scaled.b}, scaled.b_scaling, !scaled.transpose_b, other);
  });
  const auto depth = static_cast<double>(scaled.transpose_a ? scaled.a.rows : scaled.a.cols);
  const double flops = 2 * static_cast<double>(scaled.c.elements()) * depth;
  const auto rate = [](const Tensor& x, double time_us) { return 3e-3 * static_cast<double>(x.elements()) / time_us; };
  fmt::print(
      "{:<16}{:>6} x [{:>5}] x {:>5}{:>10.0f}{:>8.0f}{:>7.2f}{:>10.1f} us{:>8.1f} + {:.1f} us, {:.0f}, {:.0f} "
      "GB/s{:>8.2f}\n",
      form, scaled.c.rows, depth, scaled.c.cols, flops / half_us * 1e-6, flops / us * 1e-6, half_us / us, us, a_us,
      b_us, rate(scaled.a, a_us), rate(scaled.b, b_us),
      half_us / (us + a_us + (scaled.b_scaling == kWeightBlocks ? 0 : b_us)));
  std::fflush(stdout);
}

// As many rows for each of 64 experts, beside the library's product of all rows with one weight.
void compare_grouped(const Bench& bench, cuda::Library& library, std::int64_t out, std::int64_t in) {
  constexpr std::int64_t kExperts = 64, kRows = 1536;
  cuda::Arena memory(bench.stream()), room(bench.stream(), true);
  GroupedProduct op{.a = bench.drawn(memory, kExperts * kRows, in, Dtype::bf16),
                    .c = bench.drawn(memory, kExperts * kRows, out, Dtype::bf16),
                    .b = {},
                    .rows = {},
                    .transpose_b = true};
  for (std::int64_t expert = 0; expert < kExperts; ++expert) {
    op.b.push_back(bench.drawn(memory, out, in, Dtype::bf16));
    op.rows.push_back(kRows);
  }
  const Product dense{.a = op.a, .b = op.b.front(), .c = op.c, .transpose_b = true};
  const double us = bench.us_of([&] { cuda::run_wgmma(op, room); });
  bool done = true;
  const double library_us = bench.us_of([&] {
    room.reset();
    done = library.multiply(dense, room) && done;
  });
  CHECK(done);
  const double flops = 2 * static_cast<double>(op.c.elements()) * static_cast<double>(in);
  fmt::print("grouped {:>12} x [{:>5}] x {:>5}{:>10.0f}{:>8.0f}{:>7.2f}\n", op.c.rows, in, out,
             flops / library_us * 1e-6, flops / us * 1e-6, library_us / us);
  std::fflush(stdout);
}

}  // namespace

TEST_CASE("products of experts beside the library's dense one of the same shape", "[.][speed]") {
  const Bench bench;
  std::unique_ptr<cuda::Library> library;
  try {
    library = cuda::open_library();
  } catch (const Error& problem) {
    fmt::print("skipped: {}\n", problem.what());
    return;
  }
  fmt::print("{:<8}{:>30}{:>10}{:>8}{:>7}\n", "product", "rows x [sum] x cols", "library", "ours", "times");
  for (const auto& [out, in] : {std::pair{512, 1024}, {1024, 256}, {4096, 7168}, {7168, 2048}})
    compare_grouped(bench, *library, out, in);
}

TEST_CASE("products in fp8 beside bfloat16, of V3's shapes", "[.][speed]") {
  const Bench bench;
  fmt::print("{:<16}{:>24}{:>10}{:>8}{:>7}{:>13}   quantizing a + b, with it\n", "product", "rows x [sum] x cols",
             "bf16", "FP8", "times", "");
  const std::pair<std::int64_t, std::int64_t> layers[] = {{4096, 7168}, {7168, 2048},  {2112, 7168}, {24576, 1536},
                                                          {32768, 512}, {7168, 16384}, {36864, 7168}};
  for (const std::int64_t rows : {4096, 8192, 16384})
    for (const auto& [out, in] : layers) {
      cuda::Arena memory(bench.stream());
      const Tensor x = bench.drawn(memory, rows, in, Dtype::bf16), w = bench.drawn(memory, out, in, Dtype::bf16);
      const Tensor y = bench.drawn(memory, rows, out, Dtype::bf16), dw = bench.drawn(memory, out, in, Dtype::f32);
      compare(bench, "forward", linear_forward(true, x, w, y));
      compare(bench, "input gradient", linear_input_gradient(true, y, w, x));
      compare(bench, "weight gradient", linear_weight_gradient(true, y, x, dw));
    }
}
