#include "kernels/cuda/mma.h"

#include "kernels/cuda/math.h"

namespace troupe::cuda {

namespace {

struct Fragments {
  float c[4];
  unsigned a[4], b[2];
};

float half(unsigned word, int which) { return std::bit_cast<float>(which == 0 ? word << 16 : word & 0xFFFF0000U); }

std::uint16_t element(const unsigned char* rows, int matrix, int row, int col) {
  const std::uint16_t* from = nullptr;
  std::memcpy(&from, rows + static_cast<std::size_t>(matrix * 8 + row) * sizeof from, sizeof from);
  return from[col];
}

}  // namespace

// Lane l's part of c, from everybody's fragments.
void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  Fragments own{};
  std::copy_n(c, 4, own.c);
  std::copy_n(a, 4, own.a);
  std::copy_n(b, 2, own.b);
  const unsigned char* bytes = simt::exchange(0xFFFFFFFFU, &own, sizeof own, "multiply_add");
  Fragments all[32];
  std::memcpy(all, bytes, sizeof all);
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + i / 2 * 8, col = 2 * t + i % 2;
    double block = 0;  // as hardware does, a block of 16 is summed by itself: a sum cut within one has other bits
    for (int k = 0; k < 16; ++k) {
      const unsigned x = all[row % 8 * 4 + k % 8 / 2].a[k / 8 * 2 + row / 8], y = all[col * 4 + k % 8 / 2].b[k / 8];
      block += static_cast<double>(half(x, k % 2)) * half(y, k % 2);
    }
    c[i] = static_cast<float>(c[i] + block);
  }
}

void load_matrices(unsigned (&to)[4], const void* row) {
  const unsigned char* rows = simt::exchange(0xFFFFFFFFU, &row, sizeof row, "load_matrices");
  const int l = simt::lane();
  for (int i = 0; i < 4; ++i)
    to[i] = element(rows, i, l / 4, l % 4 * 2) | static_cast<unsigned>(element(rows, i, l / 4, l % 4 * 2 + 1)) << 16;
}

void load_transposed(unsigned (&to)[4], const void* row) {
  const unsigned char* rows = simt::exchange(0xFFFFFFFFU, &row, sizeof row, "load_transposed");
  const int l = simt::lane();
  for (int i = 0; i < 4; ++i)
    to[i] = element(rows, i, l % 4 * 2, l / 4) | static_cast<unsigned>(element(rows, i, l % 4 * 2 + 1, l / 4)) << 16;
}

unsigned pack_halves(float low, float high) { return narrow(low) | static_cast<unsigned>(narrow(high)) << 16; }
float power_of_two(float x) {
  const float power = std::exp2(x);
  return power < 0x1.0p-126F ? 0.0F : power;
}

void copy_async(void* shared, const void* global, int bytes) { simt::copy_later(shared, global, bytes); }
void copy_async_commit() { simt::end_copies(); }
void copy_async_wait_for(int left) { simt::finish_copies(left); }

}  // namespace troupe::cuda
