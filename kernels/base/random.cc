#include "kernels/base/random.h"

#include <bit>
#include <cmath>

#include "kernels/base/check.h"

namespace troupe {

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_low, std::uint64_t counter_high) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> c{static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
                                 static_cast<std::uint32_t>(counter_high),
                                 static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ULL * c[0], p1 = 0xCD9E8D57ULL * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

std::uint64_t random_key(std::uint64_t seed, std::string_view purpose) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : purpose) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  const auto block = philox(seed, hash, 0x74726F757065ULL);
  return (static_cast<std::uint64_t>(block[1]) << 32) | block[0];
}

std::uint64_t random_word(std::uint64_t key, std::uint64_t a, std::uint64_t b) {
  const auto block = philox(key, a, b);
  return (static_cast<std::uint64_t>(block[1]) << 32) | block[0];
}

double random_uniform(std::uint64_t key, std::uint64_t a, std::uint64_t b) {
  return static_cast<double>(random_word(key, a, b) >> 11) * 0x1.0p-53;
}

std::uint64_t random_below(std::uint64_t bound, std::uint64_t key, std::uint64_t a, std::uint64_t b) {
  CHECK(bound > 0, "an empty range has no random member");
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(random_word(key, a, b)) * bound) >> 64);
}

float random_normal(std::uint64_t key, std::uint64_t a, std::uint64_t b) {
  const auto block = philox(key, a, b);
  const double u = (block[0] + 0.5) * 0x1.0p-32, v = block[1] * 0x1.0p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
}

std::uint64_t random_permute(std::uint64_t index, std::uint64_t count, std::uint64_t key) {
  CHECK(index < count, "index {} is not below {}", index, count);
  if (count == 1) return 0;
  const int half = (std::bit_width(count - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  do {
    std::uint64_t left = index >> half, right = index & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t next = left ^ (random_word(key, right, round) & mask);
      left = right;
      right = next;
    }
    index = (left << half) | right;
  } while (index >= count);
  return index;
}

}  // namespace troupe
