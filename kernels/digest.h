// The digest of a run of elements (formula: Digest in kernels/op.h), for whoever writes them and whoever reads them.
#pragma once

#include <cstdint>

namespace troupe {

inline std::uint64_t digest_factor(std::uint64_t index) {
  const std::uint64_t mixed = index * 0x9E3779B97F4A7C15ULL;
  return (mixed ^ mixed >> 32) << 1 | 1U;
}

// Bits: std::uint32_t of a float32, std::uint16_t of a bfloat16.
template <typename Bits>
std::uint64_t digest_of(const Bits* bits, std::int64_t count, std::uint64_t first) {
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i)
    sum += (static_cast<std::uint64_t>(bits[i]) + 1) * digest_factor(first + static_cast<std::uint64_t>(i));
  return sum;
}

}  // namespace troupe
