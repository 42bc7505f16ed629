#include <array>

#include "kernels/base/check.h"
#include "kernels/cuda/warpgroup_forms.h"

namespace troupe::cuda {

namespace {

using Row = std::array<float, 16>;  // of a left operand

float widened(const void* at) {
  std::uint16_t half = 0;
  std::memcpy(&half, at, sizeof half);
  return std::bit_cast<float>(static_cast<unsigned>(half) << 16);
}

// Of row or column x and place k of an operand.
float element(const Operand& from, bool across, int x, int k) {
  const auto start = reinterpret_cast<std::uintptr_t>(from.start);
  const int along = x / 8 * kPanelAtom + x % 8 * kPanelRow + 2 * k;
  const int beside = x / 64 * from.panel + k / 8 * kPanelAtom + k % 8 * kPanelRow + x % 64 * 2;
  std::uintptr_t at = start + static_cast<std::uintptr_t>(across ? beside : along);
  at ^= (at >> 7 & 7U) << 4;  // the swizzle
  return widened(reinterpret_cast<const void*>(at));
}

Row row_of(const Operand& a, bool across, int g) {
  Row row;
  for (int k = 0; k < 16; ++k) row[static_cast<std::size_t>(k)] = element(a, across, g, k);
  return row;
}

// Row g + 8 half of a warp's sixteen from the fragments of its lanes.
Row row_of_fragments(const unsigned char* lanes, int g, int half) {
  Row row;
  for (int k = 0; k < 16; ++k)
    row[static_cast<std::size_t>(k)] = widened(lanes + (g * 4 + k % 8 / 2) * 16 + (k / 8 * 2 + half) * 4 + k % 2 * 2);
  return row;
}

// Rows of thread number `thread` of the group.
void multiply(int thread, float* c, int columns, const Row (&rows)[2], const Operand& b, bool b_across, bool fresh) {
  const int t = thread % 4;
  for (int half = 0; half < 2; ++half)
    for (int j = 0; j < columns / 8; ++j)
      for (int i = 0; i < 2; ++i) {
        float& sum = c[4 * j + 2 * half + i];
        double block = 0;  // summed by itself and rounded: bits that mma.cc's products don't have
        for (int k = 0; k < 16; ++k)
          block +=
              static_cast<double>(rows[half][static_cast<std::size_t>(k)]) * element(b, b_across, 8 * j + 2 * t + i, k);
        sum = (fresh ? 0.0F : sum) + static_cast<float>(block);
      }
}

void later(float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across, bool fresh) {
  const int thread = static_cast<int>(threadIdx.x % 128), g = thread / 32 * 16 + thread % 32 / 4;
  simt::do_later([=] {
    const Row rows[2] = {row_of(a, a_across, g), row_of(a, a_across, g + 8)};
    multiply(thread, c, columns, rows, b, b_across, fresh);
  });
}

}  // namespace

void multiply_later(float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across) {
  later(c, columns, a, b, a_across, b_across, false);
}
void multiply_fresh_later(float* c, int columns, const Operand& a, const Operand& b, bool a_across, bool b_across) {
  later(c, columns, a, b, a_across, b_across, true);
}
void multiply_held_later(float* c, int columns, const unsigned* a, const Operand& b, bool b_across, bool fresh) {
  std::array<unsigned, 4> own;
  std::copy_n(a, 4, own.begin());
  const unsigned char* lanes = simt::exchange(0xFFFFFFFFU, own.data(), sizeof own, "group_multiply_add");
  const int thread = static_cast<int>(threadIdx.x % 128), g = thread % 32 / 4;
  const std::array rows{row_of_fragments(lanes, g, 0), row_of_fragments(lanes, g, 1)};
  simt::do_later([=] {
    CHECK(std::equal(own.begin(), own.end(), a), "a left operand in registers changed before its product was over");
    const Row both[2] = {rows[0], rows[1]};
    multiply(thread, c, columns, both, b, b_across, fresh);
  });
}
// Every lane gives one row's place; row r of matrix m is lane 8 m + r's, its elements 2 t and the next lane 4 r + t's.
void store_matrices(void* row, const unsigned (&from)[4]) {
  const unsigned char* bytes = simt::exchange(0xFFFFFFFFU, &row, sizeof row, "store_matrices");
  const int l = simt::lane();
  for (int m = 0; m < 4; ++m) {
    unsigned char* to = nullptr;
    std::memcpy(&to, bytes + static_cast<std::size_t>(m * 8 + l / 4) * sizeof to, sizeof to);
    std::memcpy(to + l % 4 * 4, &from[m], sizeof from[m]);
  }
  __syncwarp();
}
void group_commit() { simt::end_work(); }
// A warp waits together.
void group_wait_for(int left) {
  simt::finish_work(left);
  __syncwarp();
}

}  // namespace troupe::cuda
