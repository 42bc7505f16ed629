// Byte pairs: how a piece of text becomes tokens. A piece begins as one token a byte; of all neighbours that may be
// merged, those that stand first in the list of merges are, the leftmost first, until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace troupe {

// The neighbours `left` and `right` become `made`. A merge's rank is its place in the list.
struct BytePair {
  std::int32_t left = 0, right = 0, made = 0;
};

class BytePairs {
 public:
  // bytes[b]: the token of byte b.
  BytePairs(const std::array<std::int32_t, 256>& bytes, const std::vector<BytePair>& merges);
  // Behind what `tokens` holds. Time: n log n.
  void encode(std::string_view piece, std::vector<std::int32_t>& tokens) const;
  std::size_t bytes() const { return entries_.capacity() * sizeof(Entry); }

 private:
  static constexpr std::uint32_t kNever = ~std::uint32_t{0};  // the rank of a pair that is not merged
  static constexpr std::size_t kShort = 48;                   // bytes up to which looking at all pairs is faster
  struct Entry {
    std::uint64_t pair = ~std::uint64_t{0};
    std::uint32_t rank = kNever;
    std::int32_t made = 0;
  };
  // Where the pair's entry is, or would be.
  std::size_t place_of(std::int32_t left, std::int32_t right) const;
  const Entry& find(std::int32_t left, std::int32_t right) const { return entries_[place_of(left, right)]; }
  void encode_short(std::string_view piece, std::vector<std::int32_t>& tokens) const;
  void encode_long(std::string_view piece, std::vector<std::int32_t>& tokens) const;

  std::array<std::int32_t, 256> bytes_;
  std::vector<Entry> entries_;  // an open-addressed table: a power of two, at most half full
  int shift_ = 0;
};

}  // namespace troupe
