// A device whose copies between host and GPU take long (tests/simt): what must wait for them does, and nothing else.
#include <cuda_runtime.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

#include "kernels/cuda/device.h"
#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr std::int64_t kFloats = 1000;
constexpr std::size_t kBytes = kFloats * 4;

Tensor floats(const Memory& memory) { return {memory.data, 1, kFloats, kFloats, Dtype::f32}; }
float first(const Memory& memory) { return *static_cast<const float*>(memory.data); }
bool all_are(const Memory& memory, float value) {
  const auto* begin = static_cast<const float*>(memory.data);
  return std::all_of(begin, begin + kFloats, [value](float one) { return one == value; });
}

// For as long as it lives.
struct Slow {
  explicit Slow(int copy_us, int kernel_us = 0) {
    simt::slow_copies(copy_us);
    simt::slow_kernels(kernel_us);
  }
  ~Slow() {
    simt::slow_copies(0);
    simt::slow_kernels(0);
  }
};

struct Held {
  Held() { simt::hold_copies(true); }
  ~Held() { simt::hold_copies(false); }
};

class Driven {
 public:
  explicit Driven(std::size_t staging) : device({.staging = staging, .staged_min = kBytes}) {}
  Memory pinned(float value = 0) {
    Memory memory = device.allocate(kBytes, Place::shared);
    std::fill_n(static_cast<float*>(memory.data), kFloats, value);
    return memory;
  }
  Memory own() { return device.allocate(kBytes, Place::device); }
  void submit(std::uint64_t token, Ops ops, std::uint64_t strand = 0, bool early = false) {
    const auto microbatch = static_cast<std::int32_t>(token);
    device.submit({.key = {SegmentClass::forward, 0, microbatch, 0},
                   .ops = std::move(ops),
                   .done = {1, token},
                   .strand = strand,
                   .early = early});
  }
  std::uint64_t next() {
    while (told_.empty()) {
      pollfd ready{device.completion_fd(), POLLIN, 0};
      REQUIRE(poll(&ready, 1, 10'000) == 1);
      device.take_completions(told_);
    }
    const std::uint64_t token = told_.front().token;
    told_.erase(told_.begin());
    return token;
  }
  CudaDevice device;

 private:
  std::vector<Completion> told_;
};

}  // namespace

TEST_CASE(
    "kernels read what a copy brings, and the word comes when a copy has taken what they wrote, whichever is slow",
    "[lagging]") {
  for (const bool copies : {true, false}) {
    const Slow slow(copies ? 3000 : 0, copies ? 0 : 3000);
    Driven driven(1 << 16);
    std::vector<Memory> all;  // stays, so that a copy that comes too late does no other harm
    for (int i = 1; i <= 5; ++i) {
      const auto value = static_cast<float>(i);
      const Memory in = all.emplace_back(driven.pinned(value)), out = all.emplace_back(driven.pinned());
      driven.submit(0, {Add{floats(in), floats(in), floats(out)}, Fill{floats(in), value + 7}});
      CHECK(driven.next() == 0);
      CHECK(all_are(out, 2 * value));
      CHECK(all_are(in, value + 7));
    }
  }
}

TEST_CASE("staging memory is used again only when what stood there has gone", "[lagging]") {
  const Slow slow(2000);
  Driven driven(2 * kBytes + 512);  // room for two
  std::vector<Memory> all;
  for (int i = 0; i < 12; ++i) all.push_back(driven.pinned());
  for (int i = 0; i < 12; ++i)
    driven.submit(static_cast<std::uint64_t>(i),
                  {Fill{floats(all[static_cast<std::size_t>(i)]), static_cast<float>(i)}});
  for (int i = 0; i < 12; ++i) {
    const std::uint64_t token = driven.next();
    CHECK(all_are(all[token], static_cast<float>(token)));
  }
}

TEST_CASE("while copies are under way the GPU computes other segments", "[lagging]") {
  Driven driven(1 << 16);
  std::optional<Held> held(std::in_place);
  const Memory in = driven.pinned(3), out = driven.pinned(), got = driven.own(), other = driven.own();
  driven.submit(0, {Copy{floats(in), floats(got)}});
  driven.submit(1, {Fill{floats(out), 4}});
  for (std::uint64_t i = 2; i < 8; ++i) driven.submit(i, {Fill{floats(other), static_cast<float>(i)}});
  for (std::uint64_t i = 2; i < 8; ++i) REQUIRE(driven.next() == i);
  CHECK(first(out) != 4);
  const Usage usage = driven.device.usage(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
  CHECK(usage.threads_idle == 1);  // no kernel runs
  CHECK(driven.device.pending() == 2);
  held.reset();
  const std::uint64_t one = driven.next(), two = driven.next();
  CHECK((one + two == 1 && all_are(out, 4) && first(got) == 3));
}

TEST_CASE("the next of a strand begins when the one before has left", "[lagging]") {
  const Slow slow(3000);
  Driven driven(1 << 16);
  const Memory sum = driven.pinned(1), more = driven.pinned(1);
  // Together they are worth more than a strand takes at once, or come one by one: either way one after another.
  for (std::uint64_t i = 0; i < 10; ++i) driven.submit(i, {Add{floats(sum), floats(more), floats(sum)}}, 5);
  for (std::uint64_t i = 0; i < 10; ++i) REQUIRE(driven.next() == i);
  CHECK(all_are(sum, 11));
}

TEST_CASE("an early word comes when its segment is on the stream, and what it leads to finds what that wrote",
          "[lagging]") {
  const Slow slow(0, 300'000);
  Driven driven(0);
  const Memory one = driven.pinned(), other = driven.pinned();
  driven.submit(1, {Fill{floats(one), 3}}, 0, true);
  CHECK(driven.next() == 1);
  CHECK(first(one) == 0);
  driven.submit(2, {Copy{floats(one), floats(other)}});
  CHECK(driven.next() == 2);
  CHECK(all_are(other, 3));
}

TEST_CASE("the next of a strand goes on the stream behind the one before, which nobody has heard of yet", "[lagging]") {
  const Slow slow(0, 100'000);
  Driven driven(0);
  const Memory one = driven.pinned(), other = driven.pinned();
  driven.submit(1, {Fill{floats(one), 3}}, 7);
  driven.submit(2, {Copy{floats(one), floats(other)}}, 7, true);
  CHECK(driven.next() == 2);
  CHECK(first(other) == 0);
  CHECK(driven.next() == 1);
  driven.submit(3, {Copy{floats(other), floats(one)}}, 7);
  CHECK(driven.next() == 3);
  CHECK(all_are(other, 3));
}

TEST_CASE("with staging memory nobody hears early: copies have ways of their own", "[lagging]") {
  const Slow slow(1000, 1000);
  Driven driven(4 * kBytes);
  const Memory one = driven.pinned();
  driven.submit(1, {Fill{floats(one), 3}}, 0, true);
  CHECK(driven.next() == 1);
  CHECK(all_are(one, 3));
}

TEST_CASE("flights whose copies are still going out are bounded", "[lagging]") {
  const Slow slow(20'000);
  Driven driven(64 * kBytes);
  std::vector<Memory> all;
  for (std::uint64_t i = 0; i < 30; ++i) {
    all.push_back(driven.pinned());
    driven.submit(i, {Fill{floats(all.back()), 1}});
  }
  for (std::size_t told = 1; told <= 30; ++told) {
    driven.next();
    // Two on the stream, four that go, and what was told since we last looked.
    CHECK(driven.device.pending() <= 30 - told);
    CHECK(driven.device.usage(0).ready + 8 >= driven.device.pending());
  }
}

TEST_CASE("a device that closes waits for what is still going out", "[lagging]") {
  const Slow slow(5000);
  Memory out, in;
  {
    Driven driven(1 << 16);
    in = driven.pinned(6);
    out = driven.pinned();
    driven.submit(0, {Copy{floats(in), floats(out)}});
  }
  CHECK(all_are(out, 6));
}

TEST_CASE("without staging memory, or with nothing large in pinned memory, a device copies nothing", "[lagging]") {
  for (const std::size_t staging : {0, 1 << 16}) {
    Driven driven(staging);
    const Memory pinned = driven.pinned(1), own = driven.own();
    Tensor few = floats(pinned);
    few.cols = few.stride = 900;
    const simt::Counts before = simt::counts();
    for (std::uint64_t i = 0; i < 20; ++i) {
      driven.submit(i, {Fill{staging == 0 ? floats(pinned) : few, 2}, Fill{floats(own), 3}, Add{few, few, few}});
      driven.next();
    }
    const simt::Counts after = simt::counts();
    CHECK(after.in_bytes + after.out_bytes == before.in_bytes + before.out_bytes);
    CHECK(after.copies == before.copies);
    CHECK(after.waits == before.waits);
    CHECK(after.records == before.records + 20);  // one a segment
  }
}
