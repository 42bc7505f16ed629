// Random numbers are pure functions of what they are for; the ready heap is the whole schedule.
#include <cmath>
#include <set>
#include <string>

#include "kernels/base/hex.h"
#include "kernels/base/random.h"
#include "kernels/ready_heap.h"
#include "kernels/strand.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

Segment segment(SegmentClass segment_class, std::int64_t step, int microbatch, int layer, std::uint64_t token = 0) {
  return {.key = {segment_class, step, microbatch, layer}, .ops = {}, .done = {0, token}};
}

std::vector<Segment> pop_all(ReadyHeap& heap) {
  std::vector<Segment> segments;
  heap.pop(segments);
  return segments;
}

Segment pop(ReadyHeap& heap) {
  std::vector<Segment> segments = pop_all(heap);
  REQUIRE(segments.size() == 1);
  return std::move(segments[0]);
}

}  // namespace

TEST_CASE("every byte comes back from its two digits", "[hex]") {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  CHECK(from_hex(to_hex(bytes)) == bytes);
  CHECK(to_hex(std::string("\0\x09\xaf", 3)) == "0009af");
}

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
  for (const SegmentKey& key : best_first) CHECK(pop(heap).key == key);
  CHECK(heap.empty());
}

TEST_CASE("a device that wants them together gets the segments of one apply, and no others with them", "[ready_heap]") {
  ReadyHeap heap;
  for (const std::uint64_t token : {1, 2, 3}) heap.push(segment(SegmentClass::apply, 0, 0, 0, token));
  heap.push(segment(SegmentClass::apply, 1, 0, 0, 4));
  heap.push(segment(SegmentClass::backward, 0, 0, 0, 5));
  heap.push(segment(SegmentClass::backward, 0, 0, 0, 6));
  const auto next = [&](std::size_t beside) {
    std::vector<Segment> some;
    heap.pop(some, beside);
    std::vector<std::uint64_t> all;
    for (const Segment& one : some) all.push_back(one.done.token);
    return all;
  };
  CHECK(next(2) == std::vector<std::uint64_t>{1, 2});
  CHECK(next(2) == std::vector<std::uint64_t>{3});
  CHECK(next(2) == std::vector<std::uint64_t>{4});
  CHECK(next(2) == std::vector<std::uint64_t>{5});
  CHECK(next(2) == std::vector<std::uint64_t>{6});
}

TEST_CASE("the ops of independent segments go in turn", "[ready_heap]") {
  const auto fills = [](std::initializer_list<float> values) {
    Segment one;
    for (const float value : values) one.ops.push_back(Fill{{}, value});
    return one;
  };
  const std::vector<Segment> segments{fills({1, 4, 6}), fills({2}), fills({3, 5})};
  std::vector<const Op*> ops;
  ops_in_turn(segments, ops);
  REQUIRE(ops.size() == 6);
  for (std::size_t i = 0; i < ops.size(); ++i) CHECK(std::get<Fill>(*ops[i]).value == static_cast<float>(i + 1));
}

TEST_CASE("segments of a strand run in the order in which they came, those that wait together", "[ready_heap]") {
  ReadyHeap heap(3);
  const auto weights = [](std::uint64_t token, std::uint64_t strand) {
    Segment one = segment(SegmentClass::weight_gradient, 0, static_cast<int>(token), 0, token);
    one.strand = strand;
    return one;
  };
  const auto tokens = [](const std::vector<Segment>& segments) {
    std::vector<std::uint64_t> all;
    for (const Segment& one : segments) all.push_back(one.done.token);
    return all;
  };
  heap.push(weights(1, 7));
  const std::vector<Segment> first = pop_all(heap);
  for (const std::uint64_t token : {2, 3, 4, 5}) heap.push(weights(token, 7));
  CHECK(heap.empty());  // all stand behind the first, which runs
  CHECK(heap.parked() == 4);
  heap.push(weights(6, 8));
  CHECK(tokens(pop_all(heap)) == std::vector<std::uint64_t>{6});  // another strand does not wait
  heap.done(first);
  const std::vector<Segment> second = pop_all(heap);
  CHECK(tokens(second) == std::vector<std::uint64_t>{2, 3, 4});  // three at most
  heap.done(second);
  const std::vector<Segment> third = pop_all(heap);
  CHECK(tokens(third) == std::vector<std::uint64_t>{5});
  heap.done(third);
  CHECK((heap.empty() && heap.parked() == 0));
}

TEST_CASE(
    "a device that wants them together gets all strands of a layer's weight gradients, and each goes on by itself",
    "[ready_heap]") {
  ReadyHeap heap(2);
  const auto weights = [](std::uint64_t token, std::uint64_t strand, int layer) {
    Segment one = segment(SegmentClass::weight_gradient, 0, 0, layer, token);
    one.strand = strand;
    return one;
  };
  for (const auto& [token, strand, layer] :
       {std::tuple{1, 7, 0}, {2, 8, 0}, {3, 9, 1}, {4, 8, 0}, {5, 8, 0}, {6, 7, 0}})
    heap.push(weights(static_cast<std::uint64_t>(token), static_cast<std::uint64_t>(strand), layer));
  const auto next = [&](std::size_t beside) {
    std::vector<Segment> some;
    heap.pop(some, beside);
    std::vector<std::uint64_t> tokens;
    for (const Segment& one : some) tokens.push_back(one.done.token);
    return std::pair(some, tokens);
  };
  const auto [first, first_tokens] = next(64);
  CHECK(first_tokens == std::vector<std::uint64_t>{1, 6, 2, 4});  // two of a strand at most
  const auto [other, other_tokens] = next(64);
  CHECK(other_tokens == std::vector<std::uint64_t>{3});  // another layer's
  CHECK(heap.empty());
  heap.done(first);
  const auto [second, second_tokens] = next(1);
  CHECK(second_tokens == std::vector<std::uint64_t>{5});
  heap.push(weights(7, 7, 0));  // of a strand of which nothing is left
  CHECK(next(64).second == std::vector<std::uint64_t>{7});
  heap.done(second);
  heap.done(other);
  CHECK((heap.empty() && heap.parked() == 0));
}

TEST_CASE("ops of a strand visit each sum once, each sum's in the order of its segments", "[ready_heap]") {
  float sums[3], terms[6];
  const auto add = [&](int sum, int term) {
    return Add{Tensor{&sums[sum], 1, 1, 1}, Tensor{&terms[term], 1, 1, 1}, Tensor{&sums[sum], 1, 1, 1}};
  };
  std::vector<Segment> segments(2);
  segments[0].ops = {add(0, 0), add(1, 1)};
  segments[1].ops = {add(2, 2), add(1, 3), add(0, 4)};
  const auto terms_in_order = [&] {
    std::vector<const Op*> ops;
    ops_by_sum(segments, ops);
    std::vector<std::int64_t> order;
    for (const Op* op : ops)
      if (const auto* one = std::get_if<Add>(op)) order.push_back(static_cast<float*>(one->b.data) - terms);
    return order;
  };
  CHECK(terms_in_order() == std::vector<std::int64_t>{0, 4, 1, 3, 2});
  segments[1].ops.push_back(Copy{});  // who does something else keeps its place
  CHECK(terms_in_order() == std::vector<std::int64_t>{0, 1, 2, 3, 4});
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
  for (const SegmentKey& key : best_first) CHECK(pop(heap).key == key);
}

TEST_CASE("segments of one priority leave the heap as they came", "[ready_heap]") {
  ReadyHeap heap;
  for (std::uint64_t i = 0; i < 50; ++i) heap.push(segment(SegmentClass::forward, 1, 2, 3, i));
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(pop(heap).done.token == i);
}
