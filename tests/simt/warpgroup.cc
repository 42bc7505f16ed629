#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

namespace {

// Of row or column x and place k of an operand.
float element(const Operand& from, bool across, int x, int k) {
  const auto start = reinterpret_cast<std::uintptr_t>(from.start);
  const int along = x / 8 * kPanelAtom + x % 8 * kPanelRow + 2 * k;
  const int beside = x / 64 * from.panel + k / 8 * kPanelAtom + k % 8 * kPanelRow + x % 64 * 2;
  std::uintptr_t at = start + static_cast<std::uintptr_t>(across ? beside : along);
  at ^= (at >> 7 & 7U) << 4;  // the swizzle
  return std::bit_cast<float>(static_cast<unsigned>(*reinterpret_cast<const std::uint16_t*>(at)) << 16);
}

void multiply(int thread, float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across) {
  const int g = thread / 32 * 16 + thread % 32 / 4, t = thread % 4;
  for (int half = 0; half < 2; ++half) {
    float row[16];
    for (int k = 0; k < 16; ++k) row[k] = element(a, a_across, g + 8 * half, k);
    for (int j = 0; j < columns / 8; ++j)
      for (int i = 0; i < 2; ++i) {
        float& sum = c[4 * j + 2 * half + i];
        double block = 0;  // summed by itself, as in mma.cc
        for (int k = 0; k < 16; ++k) block += static_cast<double>(row[k]) * element(b, b_across, 8 * j + 2 * t + i, k);
        sum = static_cast<float>(sum + block);
      }
  }
}

}  // namespace

void multiply_later(float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across) {
  const int thread = static_cast<int>(threadIdx.x % 128);
  simt::do_later([=] { multiply(thread, c, columns, a, b, a_across, b_across); });
}
void group_commit() { simt::end_work(); }
void group_wait_for(int left) { simt::finish_work(left); }

}  // namespace troupe::cuda
