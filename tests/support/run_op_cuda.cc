// The memory that an op's tensors span is copied to the GPU, the op runs there, and all of it is copied back, what the
// op had no business to write too.
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/arena.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/product_wgmma.h"
#include "kernels/cuda/quantize.h"
#include "kernels/op_tensors.h"
#include "kernels/op_touches.h"
#include "kernels/tiles.h"
#include "tests/support/run_op.h"

namespace troupe::test {

namespace {

using cuda::must;

struct Range {
  std::size_t size = 0;
  void* on_device = nullptr;
};
using Ranges = std::map<char*, Range>;  // by where they begin; they don't touch

// Rows of codes go on with zeros, which belong to them.
std::size_t span_of(const Tensor& t) {
  if (t.dtype == Dtype::e4m3) return static_cast<std::size_t>(t.rows * t.stride);
  return static_cast<std::size_t>((t.rows - 1) * t.stride + t.cols) * bytes_of(t.dtype);
}

void add(Ranges& ranges, const Tensor& t) {
  if (!t || t.cols == 0) return;
  char *begin = static_cast<char*>(t.data), *end = begin + span_of(t);
  for (auto i = ranges.begin(); i != ranges.end();) {
    if (i->first > end || i->first + i->second.size < begin) {
      ++i;
      continue;
    }
    begin = std::min(begin, i->first);
    end = std::max(end, i->first + i->second.size);
    i = ranges.erase(i);
  }
  ranges[begin].size = static_cast<std::size_t>(end - begin);
}

// The same offset within 256 bytes, so that what is aligned for the processor is so on the GPU, and what isn't isn't. Whole
// chunks of 16 bytes: checkers of memory take an asynchronous copy for one of 16 bytes, however few it reads.
void upload(Ranges& ranges) {
  for (auto& [begin, range] : ranges) {
    const std::size_t past = reinterpret_cast<std::uintptr_t>(begin) % 256;
    void* memory = nullptr;
    const std::size_t size = (range.size + past + 15) / 16 * 16;
    must(cudaMalloc(&memory, size), "taking memory");
    must(cudaMemset(memory, 0xC5, size), "filling memory");
    range.on_device = static_cast<char*>(memory) + past;
    must(cudaMemcpy(range.on_device, begin, range.size, cudaMemcpyHostToDevice), "copying to the GPU");
  }
  // A copy may still be under way when it returns, and an op's stream waits for no other.
  must(cudaDeviceSynchronize(), "copying to the GPU");
}

void download(const Ranges& ranges) {
  for (const auto& [begin, range] : ranges) {
    must(cudaMemcpy(begin, range.on_device, range.size, cudaMemcpyDeviceToHost), "copying from the GPU");
    must(cudaFree(static_cast<char*>(range.on_device) - reinterpret_cast<std::uintptr_t>(begin) % 256), "freeing");
  }
}

void move(const Ranges& ranges, Tensor& t) {
  if (!t || t.cols == 0) return;
  const auto range = std::prev(ranges.upper_bound(static_cast<char*>(t.data)));
  t.data = static_cast<char*>(range->second.on_device) + (static_cast<char*>(t.data) - range->first);
}

// What an op says to write whole (kernels/op_touches.h) holds other bytes before: those of it that stay as they are would
// not be what the test expects.
void spoil_outputs(const Op& op) {
  std::vector<std::pair<Tensor, Touch>> all;
  for_each_touch(op, [&all](const Tensor& x, Touch touch) { all.emplace_back(x, touch); });
  const auto begin_of = [](const Tensor& x) { return static_cast<const char*>(x.data); };
  for (const auto& [x, touch] : all) {
    if (touch != Touch::write || !x || x.cols == 0 || !x.contiguous()) continue;
    const auto touches = [&, &one = x](const auto& other) {
      const Tensor& t = other.first;
      return &t != &one && t && t.cols > 0 && begin_of(t) < begin_of(one) + span_of(one) &&
             begin_of(one) < begin_of(t) + span_of(t);
    };
    if (std::none_of(all.begin(), all.end(), touches)) must(cudaMemset(x.data, 0x9D, span_of(x)), "spoiling memory");
  }
  must(cudaDeviceSynchronize(), "spoiling memory");
}

cudaStream_t new_stream() {
  cudaStream_t stream = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return stream;
}

// `run` puts the ops, whose tensors stand there, on the arena's stream.
template <typename Run>
void run_there(cuda::Arena& arena, const Ops& ops, Run run) {
  Ops there = ops;
  Ranges ranges;
  for (Op& op : there) for_each_tensor(op, [&](Tensor& t) { add(ranges, t); });
  upload(ranges);
  for (Op& op : there) for_each_tensor(op, [&](Tensor& t) { move(ranges, t); });
  run(there);
  must(cudaStreamSynchronize(arena.stream()), "running an op");
  download(ranges);
}

void run_on(cuda::Arena& arena, const Ops& ops) {
  run_there(arena, ops, [&](const Ops& there) {
    if (there.size() == 1) spoil_outputs(there.front());
    std::vector<const Op*> places;
    for (const Op& op : there) places.push_back(&op);
    for (std::size_t next = 0; next < places.size();) {
      arena.reset();
      next += cuda::run_next(places, next, arena);
    }
  });
}

}  // namespace

void run_op(const Op& op) { run_ops({op}); }

void run_ops(const Ops& ops) {
  static cuda::Arena& arena = *new cuda::Arena(new_stream());
  run_on(arena, ops);
}

void run_on_warpgroups(const Product& op) {
  CHECK(cuda::takes_wgmma(op), "a product that doesn't go to warpgroups");
  run_on_warpgroups(Ops{op});
}

void run_on_warpgroups(const Ops& ops) {
  static cuda::Arena& arena = *new cuda::Arena(new_stream(), true);
  run_on(arena, ops);
}

QuantizedThere quantize_there(const Tensor& x, const Scaling& scaling, bool down) {
  static cuda::Arena& arena = *new cuda::Arena(new_stream());
  QuantizedThere there;
  run_there(arena, {Fill{x, 0}}, [&](const Ops& ops) {
    arena.reset();
    const cuda::Codes codes = cuda::quantize({std::get<Fill>(ops.front()).out}, scaling, down, arena).front();
    must(cudaStreamSynchronize(arena.stream()), "quantizing");
    const std::int64_t rows = tiles_count(codes.rows, codes.width), tiles = tiles_count(codes.depth, kScaledDepth);
    there.codes.resize(static_cast<std::size_t>(codes.rows * codes.depth));
    there.scales.resize(static_cast<std::size_t>(tiles * rows));
    const auto copy = [](void* to, const void* from, std::int64_t size) {
      must(cudaMemcpy(to, from, static_cast<std::size_t>(size), cudaMemcpyDeviceToHost), "copying from the GPU");
    };
    for (std::int64_t row = 0; row < codes.rows; ++row)
      copy(&there.codes[static_cast<std::size_t>(row * codes.depth)], codes.data + row * codes.stride, codes.depth);
    for (std::int64_t tile = 0; tile < tiles; ++tile)
      copy(&there.scales[static_cast<std::size_t>(tile * rows)], codes.scales + tile * codes.scale_stride, rows * 4);
  });
  return there;
}

bool on_cpu() { return false; }

}  // namespace troupe::test
