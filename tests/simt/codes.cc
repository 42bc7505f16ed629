#include "kernels/cuda/codes.h"

#include <array>

#include "kernels/tensor.h"

namespace troupe::cuda {

namespace {

using Row = std::array<float, 32>;
constexpr int kFraction = 13;  // bits behind the leading one that an H100 keeps of a block's terms and of its sum

const std::array<float, 256>& numbers() {
  static const std::array<float, 256> all = [] {
    std::array<float, 256> made{};
    for (std::size_t code = 0; code < made.size(); ++code) made[code] = from_e4m3(static_cast<std::uint8_t>(code));
    return made;
  }();
  return all;
}

// Row or column x of an operand.
Row row_of(const Operand& from, int x) {
  Row row;
  for (int k = 0; k < 32; ++k) {
    auto at = reinterpret_cast<std::uintptr_t>(from.start) + static_cast<std::uintptr_t>(x) * kPanelRow +
              static_cast<std::uintptr_t>(k);
    at ^= (at >> 7 & 7U) << 4;  // the swizzle
    row[static_cast<std::size_t>(k)] = numbers()[*reinterpret_cast<const unsigned char*>(at)];
  }
  return row;
}

double cut(double x, double step) {
  return static_cast<double>(static_cast<std::int64_t>(x / step)) * step;  // towards zero
}
double step_at(double largest) { return std::ldexp(1.0, std::ilogb(largest) - kFraction); }

// Terms are cut where the largest one's bits end, and so is their sum at its own.
float added(float c, const Row& a, const Row& b) {
  std::array<double, 33> terms{};
  double largest = std::abs(static_cast<double>(c));
  terms[32] = c;
  for (std::size_t k = 0; k < 32; ++k) {
    terms[k] = static_cast<double>(a[k]) * b[k];
    if (std::isnan(terms[k])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(terms[k]));
  }
  if (largest == 0) return 0;
  if (!std::isfinite(largest)) return static_cast<float>(largest);
  const double step = step_at(largest);
  double sum = 0;
  for (const double term : terms) sum += cut(term, step);
  return sum == 0 ? 0.0F : static_cast<float>(cut(sum, step_at(std::abs(sum))));
}

}  // namespace

unsigned pack_codes(float low, float high) {
  return round_to_e4m3(low) | static_cast<unsigned>(round_to_e4m3(high)) << 8;
}

void multiply_codes_later(float* c, int columns, const Operand& a, const Operand& b, bool fresh) {
  const int thread = static_cast<int>(threadIdx.x % 128), g = thread / 32 * 16 + thread % 32 / 4, t = thread % 4;
  simt::do_later([=] {
    const std::array rows{row_of(a, g), row_of(a, g + 8)};
    for (int j = 0; j < columns / 8; ++j)
      for (int i = 0; i < 2; ++i) {
        const Row column = row_of(b, 8 * j + 2 * t + i);
        for (int half = 0; half < 2; ++half) {
          float& sum = c[4 * j + 2 * half + i];
          sum = added(fresh ? 0.0F : sum, rows[static_cast<std::size_t>(half)], column);
        }
      }
  });
}

}  // namespace troupe::cuda
