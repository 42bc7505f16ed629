// The CPU device: every segment runs once and tells once, the most urgent first, several at a time.
#include <poll.h>

#include <chrono>

#include "kernels/cpu/device.h"
#include "tests/support/naive.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

Segment segment(SegmentClass segment_class, int microbatch, std::uint64_t token, Ops ops = {}) {
  return {.key = {segment_class, 0, microbatch, 0}, .ops = std::move(ops), .done = {3, token}};
}

// Takes completions as the loop thread does: wait for the descriptor, take all. Empty after ten silent seconds.
std::vector<Completion> wait_for(Device& device, std::size_t count) {
  std::vector<Completion> done;
  while (done.size() < count) {
    pollfd ready{device.completion_fd(), POLLIN, 0};
    if (poll(&ready, 1, 10'000) != 1) return {};
    device.take_completions(done);
  }
  return done;
}

std::int64_t now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

// About a hundred milliseconds of work.
Op long_op(const Tensor& out) { return Initialize{out, 1, 0, 1}; }

}  // namespace

TEST_CASE("every segment completes exactly once", "[device]") {
  for (const int threads : {0, 1, 3}) {
    CpuDevice device(threads);
    constexpr int kSegments = 500;
    const Owned counts(kSegments, 1);
    cpu::Scratch scratch;
    cpu::run(Op{Fill{counts, 0}}, scratch);
    for (int i = 0; i < kSegments; ++i) {
      const Tensor own = counts.tensor().row_range(i, 1);
      device.submit(
          segment(SegmentClass::forward, i, static_cast<std::uint64_t>(i), {Fill{own, 1}, Add{own, own, own}}));
    }
    std::vector<int> seen(kSegments);
    for (const Completion& done : wait_for(device, kSegments)) {
      CHECK(done.actor == 3);
      ++seen[done.token];
    }
    for (int i = 0; i < kSegments; ++i) CHECK((seen[static_cast<std::size_t>(i)] == 1 && counts.at(i, 0) == 2));
    CHECK(device.pending() == 0);
    std::vector<Completion> more;
    device.take_completions(more);
    CHECK(more.empty());
  }
}

TEST_CASE("the descriptor is readable exactly while completions wait", "[device]") {
  CpuDevice device(0);
  pollfd ready{device.completion_fd(), POLLIN, 0};
  CHECK(poll(&ready, 1, 0) == 0);
  device.submit(segment(SegmentClass::forward, 0, 1));
  device.submit(segment(SegmentClass::forward, 0, 2));
  CHECK(poll(&ready, 1, 0) == 1);
  CHECK(wait_for(device, 2).size() == 2);
  CHECK(poll(&ready, 1, 0) == 0);
}

TEST_CASE("one thread runs what is ready in the order of the heap", "[device]") {
  CpuDevice device(1);
  const Owned work(1000, 1000);
  device.submit(segment(SegmentClass::apply, 0, 0, {long_op(work)}));  // holds the thread while the others gather
  for (const int microbatch : {4, 2, 5})
    device.submit(segment(SegmentClass::forward, microbatch, static_cast<std::uint64_t>(microbatch)));
  device.submit(segment(SegmentClass::weight_gradient, 0, 9));
  device.submit(segment(SegmentClass::backward, 7, 7));
  std::vector<std::uint64_t> order;
  for (const Completion& done : wait_for(device, 6)) order.push_back(done.token);
  CHECK(order == std::vector<std::uint64_t>{0, 7, 2, 4, 5, 9});
}

TEST_CASE("whoever watches a device sees each segment begin and end, one after another on a thread", "[device]") {
  struct Seen final : Watch {
    void begins(std::size_t thread, const std::vector<Segment>& segments, std::int64_t at_us) override {
      CHECK((thread == 0 && segments.size() == 1 && at_us >= now && !running));
      running = true;
      now = at_us;
    }
    void ends(std::size_t, const std::vector<Segment>& segments, std::int64_t begin_us, std::int64_t at_us) override {
      CHECK((running && begin_us == now && at_us >= begin_us));
      running = false;
      now = at_us;
      ended.push_back(segments.front().key.microbatch);
    }
    bool running = false;
    std::int64_t now = now_us();
    std::vector<int> ended;
  } seen;
  CpuDevice device(1, false, &seen);
  for (int microbatch = 0; microbatch < 5; ++microbatch) device.submit(segment(SegmentClass::forward, microbatch, 0));
  REQUIRE(wait_for(device, 5).size() == 5);
  CHECK(seen.ended.size() == 5);
  CHECK(seen.now <= now_us());
}

TEST_CASE("two threads work at once and their time is counted", "[device]") {
  CpuDevice device(2);
  const Owned first(1000, 1000), second(1000, 1000);
  // The short segments can only finish before the long one if a second thread runs them.
  device.submit(segment(SegmentClass::forward, 0, 0, {long_op(first), long_op(first)}));
  for (std::uint64_t i = 1; i <= 3; ++i) device.submit(segment(SegmentClass::forward, 1, i));
  const auto done = wait_for(device, 4);
  REQUIRE(done.size() == 4);
  CHECK(done.back().token == 0);
  const Usage usage = device.usage(now_us());
  CHECK(usage.threads == 2);
  CHECK(usage.threads_idle == 2);
  CHECK(usage.of(Use::learn) > 0);
  CHECK(usage.of(Use::evaluate) == 0);
}

TEST_CASE("every moment of every compute thread is in one use", "[device][bill]") {
  const std::int64_t before_us = now_us();
  CpuDevice device(2);
  const std::int64_t after_us = now_us();
  const Owned learned(1000, 100), judged(1000, 100), copied(1000, 100);
  device.submit(segment(SegmentClass::forward, 0, 0, {long_op(learned)}));
  device.submit(segment(SegmentClass::evaluate, 0, 1, {long_op(judged)}));
  Segment snapshot = segment(SegmentClass::apply, 0, 2, {long_op(copied)});
  snapshot.key.snapshot = true;
  device.submit(std::move(snapshot));
  const auto within = [&](const Usage& usage, std::int64_t at_us) {
    CHECK(usage.total_us() <= 2 * (at_us - before_us));
    CHECK(usage.total_us() >= 2 * (at_us - after_us));
  };
  const std::int64_t half_us = now_us();
  within(device.usage(half_us), half_us);  // what runs counts too
  REQUIRE(wait_for(device, 3).size() == 3);
  const std::int64_t end_us = now_us();
  const Usage usage = device.usage(end_us);
  within(usage, end_us);
  for (const Use use : {Use::learn, Use::evaluate, Use::snapshot, Use::idle}) CHECK(usage.of(use) > 0);
}

TEST_CASE("a device that closes runs what it was given first", "[device]") {
  const Owned out(50, 1);
  {
    CpuDevice device(2);
    for (int i = 0; i < 50; ++i)
      device.submit(segment(SegmentClass::forward, i, 0, {Fill{out.tensor().row_range(i, 1), 4}}));
  }
  for (int i = 0; i < 50; ++i) CHECK(out.at(i, 0) == 4);
}

TEST_CASE("device memory is zero, aligned, and outlives the device", "[device]") {
  Memory small, large, shared;
  {
    CpuDevice device(0);
    small = device.allocate(100, Place::device), large = device.allocate(5'000'000, Place::device);
    shared = device.allocate(100, Place::shared);
  }
  for (const Memory& memory : {small, large, shared}) {
    CHECK(reinterpret_cast<std::uintptr_t>(memory.data) % 64 == 0);
    const auto* bytes = static_cast<const char*>(memory.data);
    CHECK(std::all_of(bytes, bytes + memory.size, [](char byte) { return byte == 0; }));
  }
}
