// Random numbers are pure functions of what they are for; the ready heap is the whole schedule.
#include <cmath>
#include <set>

#include "kernels/base/random.h"
#include "kernels/ready_heap.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

Segment segment(SegmentClass segment_class, std::int64_t step, int microbatch, int layer, std::uint64_t token = 0) {
  return {.key = {segment_class, step, microbatch, layer}, .ops = {}, .done = {0, token}};
}

}  // namespace

TEST_CASE("philox gives the published numbers", "[random]") {
  // Known answers of Philox 4x32-10 for zeros and for ones, from the authors' test vectors.
  CHECK(philox(0, 0, 0) == std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox(~0ULL, ~0ULL, ~0ULL) == std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("keys differ by seed and by purpose", "[random]") {
  std::set<std::uint64_t> keys;
  for (const std::uint64_t seed : {1, 2, 3})
    for (const char* purpose : {"initialize/a", "initialize/b", "shuffle"}) keys.insert(random_key(seed, purpose));
  CHECK(keys.size() == 9);
  CHECK(random_key(1, "shuffle") == random_key(1, "shuffle"));
}

TEST_CASE("uniform and normal draws have their moments", "[random]") {
  constexpr int kDraws = 20000;
  double mean = 0, normal_mean = 0, normal_square = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const double u = random_uniform(9, i), z = random_normal(9, i);
    REQUIRE((u >= 0 && u < 1 && std::isfinite(z)));
    mean += u / kDraws, normal_mean += z / kDraws, normal_square += z * z / kDraws;
    REQUIRE(random_below(7, 9, i) < 7);
  }
  // Standard errors of 20,000 draws: 0.002, 0.007, 0.01; 4 of each are allowed.
  CHECK(std::abs(mean - 0.5) < 0.008);
  CHECK(std::abs(normal_mean) < 0.028);
  CHECK(std::abs(normal_square - 1) < 0.04);
}

TEST_CASE("a permutation visits every index once", "[random]") {
  for (const std::uint64_t count : {1, 2, 3, 10, 64, 1000}) {
    std::set<std::uint64_t> places;
    for (std::uint64_t i = 0; i < count; ++i) places.insert(random_permute(i, count, 4));
    CHECK(places.size() == count);
    CHECK(*places.rbegin() == count - 1);
  }
}

TEST_CASE("the heap gives backward before forward, older before younger, weight gradients late", "[ready_heap]") {
  using enum SegmentClass;
  const std::vector<SegmentKey> best_first{{apply, 7, 0, 0},   {backward, 7, 1, 2},        {backward, 7, 3, 0},
                                           {forward, 7, 0, 5}, {forward, 7, 0, 1},         {forward, 7, 4, 9},
                                           {forward, 8, 0, 9}, {weight_gradient, 7, 0, 0}, {evaluate, 1, 0, 0}};
  ReadyHeap heap;
  for (const std::size_t i : {4, 8, 2, 0, 7, 6, 1, 5, 3}) heap.push({.key = best_first[i], .ops = {}, .done = {}});
  for (const SegmentKey& key : best_first) CHECK(heap.pop().key == key);
  CHECK(heap.empty());
}

TEST_CASE("what has a lead goes before the backwards that it is ahead of", "[ready_heap]") {
  using enum SegmentClass;
  const auto leading = [](SegmentClass segment_class, std::int32_t microbatch, std::int32_t lead) {
    return SegmentKey{segment_class, 7, microbatch, 0, false, lead};
  };
  const std::vector<SegmentKey> best_first{{apply, 7, 9, 0},
                                           leading(forward, 4, 3),
                                           {backward, 7, 2, 0},
                                           leading(forward, 5, 3),
                                           leading(weight_gradient, 1, -1),
                                           {backward, 7, 3, 0},
                                           leading(forward, 6, 3),
                                           {backward, 8, 0, 0},
                                           {forward, 7, 0, 0},
                                           {weight_gradient, 7, 0, 0}};
  ReadyHeap heap;
  for (const std::size_t i : {7, 2, 5, 0, 9, 6, 3, 8, 1, 4}) heap.push({.key = best_first[i], .ops = {}, .done = {}});
  for (const SegmentKey& key : best_first) CHECK(heap.pop().key == key);
}

TEST_CASE("segments of one priority leave the heap as they came", "[ready_heap]") {
  ReadyHeap heap;
  for (std::uint64_t i = 0; i < 50; ++i) heap.push(segment(SegmentClass::forward, 1, 2, 3, i));
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(heap.pop().done.token == i);
}
