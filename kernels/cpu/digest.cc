// out[0, 0..3] = low and high word of the digest of x, and of copy (0 without one); assigned.
#include "kernels/digest.h"

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"

namespace troupe::cpu {

namespace {

std::uint64_t digest_of_rows(const Tensor& x, std::uint64_t first) {
  std::uint64_t sum = 0;
  for (std::int64_t t = 0; t < x.rows; ++t, first += static_cast<std::uint64_t>(x.cols))
    sum += x.dtype == Dtype::bf16 ? digest_of(x.row<const std::uint16_t>(t), x.cols, first)
                                  : digest_of(x.row<const std::uint32_t>(t), x.cols, first);
  return sum;
}

}  // namespace

void run(const Digest& op, Scratch&) {
  const std::uint64_t sums[2] = {digest_of_rows(op.x, op.first), op.copy ? digest_of_rows(op.copy, op.first) : 0};
  std::memcpy(op.out.row<std::int32_t>(0), sums, sizeof sums);
}

}  // namespace troupe::cpu
