#include "kernels/cuda/bulk.h"

#include <cstring>
#include <stdexcept>

#include "kernels/cuda/warpgroup.h"

namespace troupe::cuda {

namespace {

// move(place in shared memory, place in the matrix or nullptr, bytes) for every element of a box, as warpgroup.h's panels
// hold it.
template <typename Move>
void each_element(unsigned char* panel, const BoxMap& map, int first_row, int first_col, Move move) {
  for (int r = 0; r < map.box_rows; ++r)
    for (int byte = 0; byte < kBoxWidth; byte += map.element) {
      const std::int64_t row = first_row + r, at = std::int64_t{first_col} * map.element + byte;
      const bool inside = row >= 0 && row < map.rows && at >= 0 && at < map.row_bytes;
      move(panel + panel_offset(r, byte / 16) + byte % 16, inside ? map.data + row * map.stride_bytes + at : nullptr,
           static_cast<std::size_t>(map.element));
    }
}

void must_be_aligned(const void* panel) {
  if (reinterpret_cast<std::uintptr_t>(panel) % 1024 != 0)
    throw std::logic_error("a box that isn't aligned to 1,024 bytes");
}

}  // namespace

BoxMap box_map(const Tensor& matrix, int box_rows) {
  const auto size = static_cast<std::int64_t>(bytes_of(matrix.dtype));
  const bool right = matrix.rows > 0 && matrix.cols > 0 && matrix.cols * size % 16 == 0 && box_rows > 0 &&
                     box_rows <= kBoxRowsMax && reinterpret_cast<std::uintptr_t>(matrix.data) % 16 == 0 &&
                     (matrix.rows == 1 || matrix.stride * size % 16 == 0);
  if (!right) throw std::logic_error("a matrix that no bulk copy takes");
  return {static_cast<unsigned char*>(matrix.data),
          matrix.rows,
          matrix.cols * size,
          matrix.stride * size,
          static_cast<int>(size),
          box_rows,
          {}};
}

void begin_barrier(Barrier& barrier, int arrivals) { simt::begin_barrier(&barrier, arrivals); }
void arrive(Barrier& barrier) { simt::arrive(&barrier, 0); }
void arrive_expecting(Barrier& barrier, int bytes) { simt::arrive(&barrier, bytes); }
void wait(Barrier& barrier, int parity) { simt::wait(&barrier, parity); }

void copy_box(void* to, const BoxMap& from, int row, int col, Barrier& done) {
  must_be_aligned(to);
  simt::deliver_later(&done, to, from.box_rows * kBoxWidth, [=, &from] {
    each_element(static_cast<unsigned char*>(to), from, row, col,
                 [](unsigned char* place, const unsigned char* element, std::size_t size) {
                   element == nullptr ? std::memset(place, 0, size) : std::memcpy(place, element, size);
                 });
  });
}

void copy_bytes(void* to, const void* from, int bytes, Barrier& done) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from) | static_cast<unsigned>(bytes)) %
          16 !=
      0)
    throw std::logic_error("a bulk copy that isn't of whole chunks of 16 bytes");
  simt::deliver_later(&done, to, bytes, [=] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); });
}

void write_box(const BoxMap& to, int row, int col, const void* from) {
  must_be_aligned(from);
  auto* panel = static_cast<unsigned char*>(const_cast<void*>(from));
  simt::write_later([=, &to] {
    each_element(panel, to, row, col, [](const unsigned char* place, unsigned char* element, std::size_t size) {
      if (element != nullptr) std::memcpy(element, place, size);
    });
  });
}
void write_boxes_commit() { simt::end_writes(); }
void write_boxes_wait_for(int left) { simt::finish_writes(left); }
void meet_group(int group) { simt::meet(group, 128); }

}  // namespace troupe::cuda
