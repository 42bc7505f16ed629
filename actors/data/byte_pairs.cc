#include "actors/data/byte_pairs.h"

#include <algorithm>
#include <queue>

#include "kernels/base/check.h"

namespace troupe {
namespace {

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

BytePairs::BytePairs(const std::array<std::int32_t, 256>& bytes, const std::vector<BytePair>& merges) : bytes_(bytes) {
  int bits = 4;
  while ((std::size_t{1} << bits) < 2 * merges.size() + 2) ++bits;
  entries_.resize(std::size_t{1} << bits);
  shift_ = 64 - bits;
  std::uint32_t rank = 0;
  for (const BytePair& merge : merges) {
    // A pair that is listed twice has its last rank, as in Hugging Face's tokenizers.
    entries_[place_of(merge.left, merge.right)] = {pair_of(merge.left, merge.right), rank++, merge.made};
  }
}

std::size_t BytePairs::place_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  std::size_t at = (pair * 0x9e3779b97f4a7c15U) >> shift_;
  while (entries_[at].pair != pair && entries_[at].rank != kNever) at = (at + 1) & (entries_.size() - 1);
  return at;
}

void BytePairs::encode(std::string_view piece, std::vector<std::int32_t>& tokens) const {
  CHECK(piece.size() < std::size_t{1} << 31, "a piece of {} bytes", piece.size());
  if (piece.size() <= kShort) {
    encode_short(piece, tokens);
  } else {
    encode_long(piece, tokens);
  }
}

void BytePairs::encode_short(std::string_view piece, std::vector<std::int32_t>& tokens) const {
  std::array<std::int32_t, kShort> parts{};
  std::array<const Entry*, kShort> pairs{};  // pairs[i]: of parts i and i + 1
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) parts[i] = bytes_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = &find(parts[i], parts[i + 1]);
  while (count > 1) {
    const auto begin = pairs.begin(), end = begin + static_cast<std::ptrdiff_t>(count - 1);
    const auto best = std::min_element(begin, end, [](const Entry* a, const Entry* b) { return a->rank < b->rank; });
    if ((*best)->rank == kNever) break;
    const auto at = static_cast<std::size_t>(best - begin);
    parts[at] = (*best)->made;
    std::move(parts.begin() + static_cast<std::ptrdiff_t>(at + 2), parts.begin() + static_cast<std::ptrdiff_t>(count),
              parts.begin() + static_cast<std::ptrdiff_t>(at + 1));
    std::move(best + 1, end, best);
    --count;
    if (at > 0) pairs[at - 1] = &find(parts[at - 1], parts[at]);
    if (at + 1 < count) pairs[at] = &find(parts[at], parts[at + 1]);
  }
  tokens.insert(tokens.end(), parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(count));
}

// A list of the parts, and a heap of the pairs. What was merged away stays in the heap and is passed over: a part only
// ever grows, so a pair whose two tokens are still there is the pair that was put in.
void BytePairs::encode_long(std::string_view piece, std::vector<std::int32_t>& tokens) const {
  constexpr std::int32_t kGone = -1;
  struct Part {
    std::int32_t token, before, after;
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t at, left, right;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  const auto count = static_cast<std::int32_t>(piece.size());
  std::vector<Part> parts(piece.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto part = [&](std::int32_t at) -> Part& { return parts[static_cast<std::size_t>(at)]; };
  const auto consider = [&](std::int32_t at) {
    if (at < 0 || part(at).after >= count) return;
    const std::int32_t left = part(at).token, right = part(part(at).after).token;
    if (const Entry& entry = find(left, right); entry.rank != kNever) heap.push({entry.rank, at, left, right});
  };
  for (std::int32_t at = 0; at < count; ++at)
    part(at) = {bytes_[static_cast<unsigned char>(piece[static_cast<std::size_t>(at)])], at - 1, at + 1};
  for (std::int32_t at = 0; at + 1 < count; ++at) consider(at);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Part& left = part(best.at);
    if (left.token != best.left || left.after >= count || part(left.after).token != best.right) continue;
    Part& right = part(left.after);
    left.token = find(best.left, best.right).made;
    right.token = kGone;
    left.after = right.after;
    if (left.after < count) part(left.after).before = best.at;
    consider(left.before);
    consider(best.at);
  }
  for (std::int32_t at = 0; at < count; at = part(at).after) tokens.push_back(part(at).token);
}

}  // namespace troupe
