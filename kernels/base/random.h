// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): a draw is a pure function of what it is for.
// There is no state to save, and no order of calls that could change a number.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace troupe {

// One block of four 32-bit words for a 64-bit key and a 128-bit counter.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_low, std::uint64_t counter_high);

// A key for a purpose: random_key(seed, "initialize/model.embed_tokens.weight"). 64-bit FNV-1a mixed with the seed.
std::uint64_t random_key(std::uint64_t seed, std::string_view purpose);

// Uniform 64-bit word, uniform in [0, 1), uniform integer in [0, bound), standard normal; (a, b) is the counter.
std::uint64_t random_word(std::uint64_t key, std::uint64_t a, std::uint64_t b = 0);
double random_uniform(std::uint64_t key, std::uint64_t a, std::uint64_t b = 0);
std::uint64_t random_below(std::uint64_t bound, std::uint64_t key, std::uint64_t a, std::uint64_t b = 0);
float random_normal(std::uint64_t key, std::uint64_t a, std::uint64_t b = 0);

// A pseudo-random permutation of 0..count-1 (cycle-walking Feistel network): where index goes.
std::uint64_t random_permute(std::uint64_t index, std::uint64_t count, std::uint64_t key);

}  // namespace troupe
