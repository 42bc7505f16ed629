#include "kernels/cuda/bulk.h"

#include <cstring>
#include <stdexcept>

namespace troupe::cuda {

namespace {

constexpr int kBoxRow = kBoxColumns * 2;  // bytes

// 16 bytes at place c ^ (r % 8) of row r: warpgroup.h's panels.
void copy_now(unsigned char* to, const BoxMap& from, int first_row, int first_col) {
  for (int r = 0; r < from.box_rows; ++r)
    for (int c = 0; c < kBoxColumns; ++c) {
      const std::int64_t row = first_row + r, col = first_col + c;
      const bool inside = row >= 0 && row < from.rows && col >= 0 && col < from.cols;
      const std::uint16_t value = inside ? from.data[row * from.stride + col] : std::uint16_t{0};
      std::memcpy(to + r * kBoxRow + ((c / 8 ^ r % 8) * 8 + c % 8) * 2, &value, sizeof value);
    }
}

}  // namespace

BoxMap box_map(const HalfMatrix& matrix, int box_rows) {
  const bool right = matrix.rows > 0 && matrix.cols > 0 && box_rows > 0 && box_rows <= kBoxRowsMax &&
                     reinterpret_cast<std::uintptr_t>(matrix.data) % 16 == 0 && (matrix.rows == 1 || matrix.stride % 8 == 0);
  if (!right) throw std::logic_error("a matrix that no bulk copy takes");
  return {matrix.data, matrix.rows, matrix.cols, matrix.stride, box_rows, {}};
}

void begin_barrier(Barrier& barrier, int arrivals) { simt::begin_barrier(&barrier, arrivals); }
void arrive(Barrier& barrier) { simt::arrive(&barrier, 0); }
void arrive_expecting(Barrier& barrier, int bytes) { simt::arrive(&barrier, bytes); }
void wait(Barrier& barrier, int parity) { simt::wait(&barrier, parity); }
void copy_box(void* to, const BoxMap& from, int row, int col, Barrier& done) {
  if (reinterpret_cast<std::uintptr_t>(to) % 1024 != 0) throw std::logic_error("a box that isn't aligned to 1,024 bytes");
  const int bytes = from.box_rows * kBoxRow;
  simt::deliver_later(&done, to, bytes,
                      [=, &from] { copy_now(static_cast<unsigned char*>(to), from, row, col); });
}

}  // namespace troupe::cuda
