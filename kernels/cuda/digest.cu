// out[0, 0..3] = low and high word of the digest of x, and of copy (0 without one); assigned. x and copy are read once.
#include "kernels/cuda/digest.h"

#include "kernels/cuda/kernels.h"

namespace troupe::cuda {

namespace {

constexpr int kQuads = 4, kFoldThreads = 256;

template <bool whole>
__device__ unsigned long long digest_of_quads(const View& x, const Sheet<kQuads>& sheet, std::uint64_t first) {
  const std::int64_t t = sheet.row();
  if (!x || t >= sheet.rows) return 0;
  uint4 bits[kQuads];
  for (int i = 0; i < kQuads; ++i) bits[i] = fetch<whole>(x, t, sheet.col(i));
  unsigned long long sum = 0;
  for (int i = 0; i < kQuads; ++i) {
    const std::int64_t col = sheet.col(i);
    sum += digest_quad<whole>(is_wide(x), bits[i], x.cols - col, first + static_cast<std::uint64_t>(t * x.cols + col));
  }
  return sum;
}

template <bool whole>
__global__ void digest_blocks(View x, View copy, std::uint64_t first, Sheet<kQuads> sheet, Digests* parts) {
  const Digests all =
      digests_of_block({digest_of_quads<whole>(x, sheet, first), digest_of_quads<whole>(copy, sheet, first)});
  if (threadIdx.x == 0 && threadIdx.y == 0) parts[blockIdx.x] = all;
}

__global__ void fold_parts(const Digests* parts, unsigned count, unsigned* out) { fold_digests(parts, count, out); }

}  // namespace

void write_digest(const Digests* parts, unsigned count, const Tensor& out, Queue& queue) {
  launch(queue, 1, kFoldThreads, 0, fold_parts, parts, count, static_cast<unsigned*>(out.data));
}

void run(const Digest& op, Queue& queue) {
  Tensor x = op.x, copy = op.copy;
  flatten(x, copy);
  const Sheet<kQuads> sheet(x.rows, x.cols);
  auto* parts = queue.take<Digests>(sheet.blocks());
  launch(queue, sheet.blocks(), sheet.threads(), 0,
         whole_quads(View(x), View(copy)) ? digest_blocks<true> : digest_blocks<false>, x, copy, op.first, sheet,
         parts);
  write_digest(parts, sheet.blocks(), op.out, queue);
}

}  // namespace troupe::cuda
